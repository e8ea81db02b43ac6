"""Enhance recordings: files and folders, of any length, sampling rate and number of channels.

    python enhance.py INPUT... -o DIR --checkpoint RUN

and in Python: `from enhance import load; model = load("runs/abl3"); y = model(x, sample_rate)`.

Each file is written to DIR under its own name, in its own format, rate, encoding and length; a
folder keeps its structure. Run again, only what is new or has changed is enhanced. Status 0: done;
1: files failed, as messages on stderr say, and all others are done; 2: something is wrong with the
command line, the model or DIR; 130: interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from tqdm import tqdm

import data.openmp  # noqa: F401  (before torch)
from data.utils import DataError, carry_out, remove_partials, say
from data.workers import stop_by_signals
from enhancement.batch import Outcome, enhance_all, select
from enhancement.model import Model, load
from enhancement.targets import jobs_of
from training.checkpoint import CheckpointError
from training.config import ConfigError

__all__ = ["Model", "load", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return carry_out("enhance.py", partial(_run, options), "; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="enhance.py", description="Enhance recordings: files and folders."
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="a file or a folder")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="output folder"
    )
    parser.add_argument(
        "-c",
        "--checkpoint",
        required=True,
        metavar="RUN",
        help="a run folder, a checkpoint, a model folder, or a model's name",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="recordings at once, by a process each"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="enhance all, replacing whatever files are in the output folder",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise DataError(f"--jobs is {options.jobs}, expected at least 1")
    if ".." in options.out.parts:  # of a folder that is not there yet, it could lead anywhere
        options.out = Path(os.path.realpath(options.out))
    jobs = jobs_of(options.inputs, options.out)
    try:
        model = load(options.checkpoint, options.device)
    except (CheckpointError, ConfigError) as error:
        raise DataError(str(error)) from None
    _make_folder(options.out, {job.target.parent for job in jobs})
    todo = jobs if options.overwrite else select(model, jobs, options.out)
    failed = 0
    for outcome in enhance_all(model, todo, options.out, options.overwrite, options.jobs):
        failed += bool(outcome.error)
        _tell(outcome)
    done = f", {len(jobs) - len(todo)} were done before" if len(todo) < len(jobs) else ""
    bad = f"; {failed} failed" if failed else ""
    say(f"{len(todo) - failed} of {len(jobs)} files enhanced into {options.out}{done}{bad}")
    return 1 if failed else 0


def _tell(outcome: Outcome) -> None:
    """What became of a file, above the progress bar, if there is something to tell."""
    with tqdm.external_write_mode():
        if outcome.error:
            say(f"{outcome.job.source}: {outcome.error}")
        elif outcome.notes:
            say(f"{outcome.job.source}: {'; '.join(outcome.notes)}")


def _make_folder(out: Path, below: Iterable[Path]) -> None:
    """Make the output folder, see that it can be written to, and that nothing half-written is left.

    below: the folders that files will be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in below:
            remove_partials(folder, older_than=3600)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(f"{out} cannot be written to ({error.strerror})") from None


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
