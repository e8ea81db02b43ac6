"""What scoring needs of runs, without what training would go on from: a seventh of the bytes.

    python -m tools.lean RUN... --out DIR

Writes DIR/NAME for each run folder: `best.pt` (of a run without one, `last.pt`) with the averaged
weights alone, `config.json` and `metrics.jsonl`. `evaluate.py`, `enhance.py`, `tools.export` and
`tools.records` take such a folder as they take the whole one, and the weights' own checksum is the
same. Training cannot go on from it.

Status 0: done; 1: something cannot be written; 2: a folder is no run's; 130: interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data.console import carry_out, show
from data.errors import DataError, FailedError
from data.files import write_text
from data.workers import stop_by_signals
from training.checkpoint import BEST, LAST, CheckpointError, pack, read, unpack, write
from training.history import CONFIG, METRICS

_KEPT = ("network", "config", "data", "values", "ema")  # what `training.trained` reads


def lean(run: Path, out: Path) -> Path:
    """Write the lean form of a run folder into `out`.

    Returns:
        The checkpoint there.

    Raises:
        DataError: the folder holds no run, or none that is whole.
        FailedError: the checkpoint cannot be written.
        OSError: another file cannot be read or written.
    """
    name = BEST if (run / BEST).is_file() else LAST
    try:
        state = unpack(read(run / name), run / name)
        whole = {key: state[key] for key in _KEPT}
        texts = {each: (run / each).read_text(encoding="utf-8") for each in (CONFIG, METRICS)}
    except (CheckpointError, LookupError, UnicodeError) as error:
        raise DataError(str(error)) from None
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: {run} is no run folder") from None
    out.mkdir(parents=True, exist_ok=True)
    try:
        write(out / name, pack(whole))
    except CheckpointError as error:
        raise FailedError(str(error)) from None
    for each, text in texts.items():
        write_text(out / each, text)
    return out / name


def _write(options: argparse.Namespace) -> int:
    names = [run.resolve().name for run in options.runs]
    if len(set(names)) < len(names):
        raise DataError("two of the runs have the same name, which would be that of their folders")
    for name, run in zip(names, options.runs, strict=True):
        if (options.out / name).resolve() == run.resolve():
            raise DataError(f"{run} would be overwritten by less; name another folder with --out")
        written = lean(run, options.out / name)
        show(f"{written} ({written.stat().st_size / 2**20:.1f} MiB)\n")
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
