"""Export a trained network: weights and description as data, and an ONNX model.

    python -m tools.export RUN [-o DIR] [--name NAME] [--no-onnx] [--overwrite]

RUN is a run folder, a checkpoint, a model folder, or a model's name. Writes model.safetensors,
config.json, model.onnx and SHA256SUMS into DIR, by default models/NAME, all or nothing; the ONNX
model is kept only if onnxruntime makes of it what PyTorch makes of the network (docs/export.md).
Status 0: done; 1: the disk or the network failed; 2: something is wrong with the command line, RUN
or DIR, or the ONNX model is not right; 130: interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bandsplit.net import BandSplitNet
from bandsplit.stft import HOP
from data.utils import DataError, FailedError, carry_out, say, show
from data.workers import stop_by_signals
from enhancement.find import find, model_folder
from enhancement.folder import CONFIG, ONNX, SUMS, WEIGHTS, OnnxFile, write_model
from enhancement.windows import Windows, hops
from training.checkpoint import CheckpointError

_PACKAGES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")
_FILES = (WEIGHTS, ONNX, CONFIG, SUMS)  # in the order in which they are put in place


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export", description="Export a trained network."
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run folder, a checkpoint, a model folder, or a model's name"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="by default models/NAME")
    parser.add_argument("--name", help="what the model is called; by default as the run folder")
    parser.add_argument("--no-onnx", action="store_true", help="no ONNX model, only the weights")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that is in DIR already"
    )
    return carry_out("export", partial(_export, parser.parse_args(arguments)))


def _export(options: argparse.Namespace) -> int:
    name = _name(options)
    target = options.out or model_folder() / name
    if not options.no_onnx:
        _need_packages()
    _refuse(target, options.overwrite)
    try:
        trained = find(options.run)
    except CheckpointError as error:
        raise DataError(str(error)) from None
    onnx = None if options.no_onnx else _onnx(trained.network)
    _refuse(target, options.overwrite)  # it may have been a while
    try:
        with _put_in_place(target) as folder:
            write_model(folder, trained, name, onnx)
    except OSError as error:
        reason = error.strerror or error
        raise FailedError(f"{target} cannot be written ({reason}); nothing was changed") from None
    sizes = ((file, (target / file).stat().st_size) for file in _FILES if (target / file).exists())
    show(f"{target}: " + ", ".join(f"{file} {size / 1e6:.1f} MB" for file, size in sizes) + "\n")
    return 0


def _name(options: argparse.Namespace) -> str:
    """What the model is called."""
    path = Path(options.run)
    if options.name is None:
        path = path.resolve()
        return (path.parent.name if path.is_file() else path.name) or "model"
    name: str = options.name
    if not name or Path(name).name != name or name.startswith((".", "-")) or "\0" in name:
        raise DataError(f"--name {name!r}: expected a name that a folder may have")
    return name


def _need_packages() -> None:
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise DataError(
            f"for ONNX the packages {', '.join(missing)} are needed: "
            "pip install -r requirements-export.txt; or, without ONNX: --no-onnx"
        )


def _refuse(target: Path, overwrite: bool) -> None:
    """Refuse a folder in which something would be lost."""
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file; -o takes a folder")
    folders = [file for file in _FILES if (target / file).is_dir()]
    if folders:
        raise DataError(f"{target / folders[0]} is a folder, where a model has a file")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        what = "holds a model" if (target / SUMS).exists() else "is not empty"
        raise DataError(
            f"{target} {what} already: take another one by -o or --name, or replace the model's "
            "files by --overwrite"
        )


def _onnx(network: BandSplitNet) -> OnnxFile:
    """The network as a checked ONNX model, and what is to be said of it."""
    # These need packages that only an export to ONNX needs.
    from tools.onnx_check import check_model, compare
    from tools.onnx_graph import OUTPUT, SHAPES, inputs_of, onnx_model, packages
    from tools.onnx_operators import OPSET

    say("exporting to ONNX, which takes a minute")
    content = onnx_model(network)
    check_model(content)
    checked = compare(network, content, hops(Windows().length) // HOP + 1)
    say(
        f"onnxruntime {checked['onnxruntime']} and PyTorch differ by at most "
        f"{checked['largest_difference']:.1e} of the spectrum's root mean square"
    )

    def values(names: Iterable[str]) -> list[dict]:
        return [{"name": name, "type": "float32", "shape": SHAPES[name]} for name in names]

    described = {
        "opset": OPSET,
        "inputs": values(inputs_of(network)),
        "outputs": values([OUTPUT]),
        "checked": checked,
        "made_by": packages(),
    }
    return OnnxFile(content, described)


@contextmanager
def _put_in_place(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write a model into; at the end its files take their places.

    `SHA256SUMS` goes first and comes last. If anything fails, what was there stays as it was, and
    nothing else is left.
    """
    made = [path for path in (target, *target.parents) if not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{uuid.uuid4().hex}.partial"
    new, old = beside / "new", beside / "old"
    try:
        for folder in (beside, new, old):
            folder.mkdir()
        yield new
        written = [file for file in _FILES if (new / file).exists()]
        target.mkdir(exist_ok=True)
        try:
            _move(reversed(_FILES), target, old)
            _move(written, new, target)
        except BaseException:
            _move([file for file in reversed(written) if not (new / file).exists()], target, new)
            _move(_FILES, old, target)
            raise
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
    shutil.rmtree(beside, ignore_errors=True)


def _move(files: Iterable[str], source: Path, target: Path) -> None:
    """Those of the files that are there."""
    for file in files:
        with suppress(FileNotFoundError):
            (source / file).rename(target / file)


if __name__ == "__main__":
    stop_by_signals()
    sys.exit(main())
