"""The scan's Triton kernels, compiled for a GPU that need not be there; what they ask of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def compile_kernel(name: str, dtype: str, capability: int) -> Any:
    """Compile a kernel of `scan.triton.scan_kernels` for u, delta, B, C and z of `dtype`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bsbimamba.scan.triton import launch, scan_kernels

    kernel = getattr(scan_kernels, name)
    fixed: dict[str, Any] = {
        "CHUNK": 64, "REVERSE": False, "SOFTPLUS": True, "HAS_Z": True, "HAS_INITIAL": False,
        "HAS_LAST": False, "WANT_LAST": False, "N": 16,
        **(launch.FORWARD if name == "scan_forward" else launch.BACKWARD),
    }  # fmt: skip
    options = {key: fixed.pop(key) for key in ("num_warps", "maxnreg")}
    sequences = ("u", "delta", "z", "out", "grad_out", "du", "ddelta", "dz")
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    aligned: dict[Any, Any] = {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in fixed:
            signature[argument] = "constexpr"
            constants[(place,)] = fixed[argument]
        elif argument.startswith("of_"):
            signature[argument] = ("i32", "i32", "i32")
            aligned.update({(place, k): [["tt.divisibility", 16]] for k in range(3)})
        elif argument in ("directions", "batch", "length", "width", "groups"):
            signature[argument] = "i32"
            if argument == "width":
                aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "*" + (dtype if argument in sequences else "fp32")
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    options = {key: value for key, value in options.items() if value is not None}
    options["enable_fp_fusion"] = True
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(compiled: Any) -> dict[str, Any]:
    """Bytes of stack and of shared memory, layout conversions, and exchanges between lanes."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        command = [str(tool), "-res-usage", str(cubin)]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(STACK|SHARED):(\d+)", usage)}
    return {
        "stack": found["STACK"],
        "shared": found["SHARED"],
        "conversions": compiled.asm["ttgir"].count("convert_layout"),
        "exchanges": compiled.asm["ptx"].count("shfl.sync"),
    }
