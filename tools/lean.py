"""What scoring needs of runs, without what training would go on from: a seventh of the bytes.

    python -m tools.lean RUN... --out DIR

Writes DIR/NAME for each run folder: `best.pt` (of a run without one, `last.pt`) with the averaged
weights alone, `config.json` and `metrics.jsonl`. `evaluate.py`, `enhance.py`, `tools.export` and
`tools.records` take such a folder; the checksum of the weights stays, that of the file does not.
Training refuses to go on from it.

Status 0: done; 1: something cannot be written; 2: a folder is no run's, or DIR has one of its name
already (nothing is written then); 130: interrupted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from data.console import carry_out, show
from data.errors import DataError, FailedError
from data.workers import stop_by_signals
from evaluation.models import names_of
from training.checkpoint import BEST, LAST, CheckpointError, pack, read, unpack, write
from training.history import CONFIG, METRICS, HistoryError
from training.history import read as read_history
from training.trained import load_trained

_KEPT = ("network", "config", "data", "values", "ema")  # what `training.trained` reads


def lean(run: Path) -> dict[str, bytes]:
    """The files of the lean form of a run folder, by name.

    Raises:
        DataError: the folder holds no run, or none that is whole.
    """
    name = BEST if (run / BEST).is_file() else LAST
    try:
        read_history(run)
        load_trained(run / name)
        state = unpack(read(run / name), run / name)
        texts = {each: read(run / each) for each in (CONFIG, METRICS)}
    except (CheckpointError, HistoryError) as error:
        raise DataError(str(error)) from None
    return {name: pack({key: state[key] for key in _KEPT}), **texts}


def put(files: Mapping[str, bytes], folder: Path) -> None:
    """Make a folder of such files, whole or not at all.

    Raises:
        FailedError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lean-") as name:
            fresh = Path(name) / folder.name
            fresh.mkdir()
            for each, content in files.items():
                write(fresh / each, content)
            fresh.rename(folder)
    except OSError as error:
        reason = error.strerror or error
        raise FailedError(f"{error.filename or folder} cannot be written: {reason}") from None
    except CheckpointError as error:
        raise FailedError(str(error)) from None


def _write(options: argparse.Namespace) -> int:
    names = names_of(options.runs)
    for name in names:
        if os.path.lexists(options.out / name):
            raise DataError(
                f"{options.out / name} is there already; name another folder with --out"
            )
    made = {name: lean(run) for name, run in zip(names, options.runs, strict=True)}
    for name, files in made.items():
        put(files, options.out / name)
        mib = sum(map(len, files.values())) / 2**20
        show(f"{options.out / name} ({mib:.1f} MiB)\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lean",
        description="Write run folders with what scoring needs alone.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    return carry_out("lean", partial(_write, parser.parse_args(arguments)))


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
