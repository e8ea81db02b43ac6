"""Builds the CUDA kernel of mamba-ssm from its source package, for this machine's GPU alone.

    python -m benchmarks.build_mamba [--source mamba_ssm-2.3.2.post1.tar.gz]

Only the compiled module is built, with the package's own flags: installing the package would bring
a dozen others, and kernels for nine architectures. Needs nvcc, a C++ compiler and ninja. Without
--source the package is fetched by pip. What is built is kept in .cache/mamba_ssm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "mamba_ssm"
VERSION = "2.3.2.post1"
FLAGS = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "--expt-extended-lambda"]
FLAGS += ["--use_fast_math", *(f"-U__CUDA_NO_{kind}__" for kind in (
    "HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_OPERATORS", "BFLOAT16_CONVERSIONS",
    "BFLOAT162_OPERATORS", "BFLOAT162_CONVERSIONS",
))]  # fmt: skip


BUILT = FOLDER / "build" / "selective_scan_cuda.so"


def built() -> bool:
    return BUILT.exists()


@cache
def load() -> Any:
    """The compiled module, with `fwd` and `bwd`; compiles it where that has not been done."""
    import torch
    from torch.utils.cpp_extension import load as compile_and_load

    if built():
        loader = ExtensionFileLoader("selective_scan_cuda", str(BUILT))
        module = module_from_spec(ModuleSpec(loader.name, loader, origin=str(BUILT)))
        loader.exec_module(module)
        return module
    major, minor = torch.cuda.get_device_capability()
    os.environ["TORCH_CUDA_ARCH_LIST"] = f"{major}.{minor}"
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count()))
    sources = FOLDER / f"mamba_ssm-{VERSION}" / "csrc" / "selective_scan"
    BUILT.parent.mkdir(parents=True, exist_ok=True)
    return compile_and_load(
        name="selective_scan_cuda",
        sources=[str(x) for x in sorted([*sources.glob("*.cpp"), *sources.glob("*.cu")])],
        extra_include_paths=[str(sources)],
        extra_cflags=["-O3", "-std=c++17"],
        extra_cuda_cflags=FLAGS,
        build_directory=str(BUILT.parent),
        verbose=True,
    )


def fetch(source: Path | None) -> None:
    """Unpack the source package into FOLDER."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if source is None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary", ":all:", "-d", str(FOLDER), f"mamba-ssm=={VERSION}"]
        # pip asks the package for its metadata, which must not make it look for nvcc.
        subprocess.run(command, check=True, env={**os.environ, "MAMBA_SKIP_CUDA_BUILD": "TRUE"})
        source = FOLDER / f"mamba_ssm-{VERSION}.tar.gz"
    with tarfile.open(source) as archive:
        archive.extractall(FOLDER, filter="data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", type=Path, help="the source package, where pip cannot fetch it")
    arguments = parser.parse_args()
    import torch

    missing = [name for name in ("nvcc", "c++", "ninja") if shutil.which(name) is None]
    if not torch.cuda.is_available():
        missing.insert(0, "a CUDA device that PyTorch sees")
    if missing:
        print(f"mamba-ssm's kernel cannot be built here: missing {', '.join(missing)}")
        return 1
    if arguments.source is not None and not arguments.source.is_file():
        print(f"{arguments.source} is not a file")
        return 1
    try:
        if not (FOLDER / f"mamba_ssm-{VERSION}").is_dir():
            fetch(arguments.source)
        load()
    except (subprocess.CalledProcessError, tarfile.TarError, RuntimeError, OSError) as error:
        print(f"mamba-ssm's kernel was not built: {error}")
        return 1
    print("built; `make bench-gpu` now measures it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
