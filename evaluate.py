"""Score trained runs, or any system's files, against clean speech; compare them in a table.

    python evaluate.py RUN... --data ROOT --out DIR
    python evaluate.py --clean DIR --enhanced DIR [--noisy DIR] --out DIR

Writes DIR/per_file.csv, DIR/summary.json and DIR/table.md, and prints the table. A run's enhanced
files are kept in DIR/enhanced/RUN. Status 0: done; 1: `--require-gain` is not met; 2: something is
wrong with the command line or the data, as a message on stderr says; 130: interrupted.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from tqdm import tqdm

from bandsplit.cost import count_macs, count_parameters
from bandsplit.net import BandSplitNet
from data.audio import AudioError, read, write
from data.corpus import Pair, find_recordings, load_pairs
from data.errors import DataError
from data.workers import usable_cores
from evaluation.report import System, write_report
from evaluation.scoring import Task, score_files
from training.checkpoint import CheckpointError
from training.config import ConfigError
from training.precision import Precision
from training.settings import beside_recipe
from training.trained import load_trained

log = logging.getLogger("evaluate")

NOISY = "noisy"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_usage(parser, options)
    try:
        systems = _evaluate_runs(options) if options.runs else _evaluate_folders(options)
        _show(write_report(options.out, systems, str(options.data or options.clean)))
    except (DataError, CheckpointError, ConfigError) as error:
        message, status = str(error), 2
    except OSError as error:
        where = error.filename2 or error.filename or options.out
        message, status = f"{where}: {error.strerror or error}", 2
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    else:
        return _check_gain(systems) if options.require_gain else 0
    print(f"evaluate.py: {message}", file=sys.stderr)
    return status


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if bool(options.runs) == bool(options.enhanced):
        parser.error("name runs and --data, or --clean and --enhanced")
    if options.runs and not options.data:
        parser.error("runs are scored on a corpus: --data ROOT")
    if options.runs and (options.clean or options.noisy):
        parser.error("--clean and --noisy go with --enhanced; of runs, --data names both")
    if options.enhanced and not options.clean:
        parser.error("--enhanced needs --clean")
    if options.enhanced and options.data:
        parser.error("--data goes with runs; --enhanced is scored against --clean")
    if options.require_gain and not (options.runs or options.noisy):
        parser.error("--require-gain needs --noisy")
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}, expected at least 1")


def _evaluate_runs(options: argparse.Namespace) -> list[System]:
    """The noisy recordings first, then each run."""
    # All that can be wrong is found before hours may be spent on the first run.
    device = Precision(options.device, "off").device
    loaded = [load_trained(run) for run in options.runs]
    names = _names([run if run.is_dir() else run.parent for run in options.runs])
    pairs = load_pairs(options.data, "test", options.skip_bad)
    _make_folder(options.out)

    tasks = {NOISY: [Task(pair.name, pair.clean, pair.noisy) for pair in pairs]}
    facts = {}
    for name, trained in zip(names, loaded, strict=True):
        folder = options.out / "enhanced" / name
        tasks[name] = _enhance(trained.network.to(device), pairs, folder, name)
        facts[name] = {
            "parameters": count_parameters(trained.network),
            "macs_per_second": count_macs(trained.network),
            "checkpoint": trained.checkpoint,
            "step": trained.step,
            "epochs": trained.epochs,
            "seed": trained.config.seed,
            "batch": f"{trained.config.data.batch_size} x {trained.config.data.crop_seconds:g} s",
            "recipe": trained.config.recipe,
            "beside_recipe": beside_recipe(trained.config),
            "held_out": trained.held_out,
        }
    return _score(tasks, options.workers, facts)


def _evaluate_folders(options: argparse.Namespace) -> list[System]:
    """The noisy recordings first if they are named, then the files of any other system."""
    folders = {NOISY: options.noisy} if options.noisy else {}
    folders |= {_names([options.enhanced])[0]: options.enhanced}
    clean = find_recordings(options.clean)
    tasks = {}
    for name, folder in folders.items():
        files = find_recordings(folder)
        if not files.keys() & clean.keys():
            raise DataError(f"{folder}: no file is named as one in {options.clean} is")
        if extra := sorted(files.keys() - clean.keys()):
            log.warning(
                "%s: %d files are not scored, for want of a clean one of that name: %s",
                folder,
                len(extra),
                ", ".join(extra[:3]) + (", ..." if extra[3:] else ""),
            )
        tasks[name] = [
            Task(utterance, path, files.get(utterance)) for utterance, path in clean.items()
        ]
    _make_folder(options.out)
    return _score(tasks, options.workers, {})


def _score(
    tasks: Mapping[str, Sequence[Task]], workers: int, facts: Mapping[str, dict[str, Any]]
) -> list[System]:
    """All systems at once, so that no process waits for the last file of one."""
    rows = iter(score_files([task for each in tasks.values() for task in each], workers))
    return [
        System(name, list(islice(rows, len(each))), facts.get(name, {}))
        for name, each in tasks.items()
    ]


def _enhance(network: BandSplitNet, pairs: Sequence[Pair], folder: Path, title: str) -> list[Task]:
    """Enhance every noisy file whole, into `folder` as 32-bit float wav."""
    device = next(network.parameters()).device
    tasks = []
    for pair in tqdm(pairs, desc=f"enhancing by {title}", disable=None):
        try:
            noisy = torch.from_numpy(read(pair.noisy)[: pair.frames])
        except AudioError as error:
            raise DataError(f"{pair.noisy}: {error}") from None
        path = folder / f"{pair.name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, network.enhance(noisy[None].to(device))[0].cpu().numpy(), "FLOAT")
        tasks.append(Task(pair.name, pair.clean, path))
    return tasks


def _check_gain(systems: Sequence[System]) -> int:
    """Status 0 if every system's PESQ is above that of the noisy recordings, else 1.

    In the mean of the files for which the noisy side, which is the first system, has a score. A
    system that has none for one of them is not above.
    """
    noisy, *others = systems
    behind = []
    for system in others:
        gains = [
            row.scores.get("pesq_wb", -math.inf) - before.scores["pesq_wb"]
            for row, before in zip(system.rows, noisy.rows, strict=True)
            if "pesq_wb" in before.scores
        ]
        if not sum(gains) > 0:
            behind.append(system.name)
    if behind:
        print(f"not above the noisy PESQ: {', '.join(behind)}", file=sys.stderr)
    return 1 if behind else 0


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each system: its folder's, with the folder above where that is not enough."""
    folders = [folder.resolve() for folder in folders]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names) or NOISY in names:
        names = [f"{folder.parent.name}-{folder.name}" for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two runs would be called {name}: name each once, or rename a folder")
    return names


def _make_folder(out: Path) -> None:
    """Make the output folder and see that it can be written to."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):
        pass


def _show(table: str) -> None:
    """Print the table to whatever standard output is, also to a pipe that nobody reads."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(table, end="", flush=True)
    except OSError as error:
        # Python tries to write the rest once more on exit; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise DataError(f"the table cannot be printed: {error.strerror}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Score trained runs, or any system's files, and compare them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folders, checkpoints"
    )
    parser.add_argument("--data", type=Path, metavar="ROOT", help="a corpus with test pairs")
    parser.add_argument("--clean", type=Path, metavar="DIR")
    parser.add_argument("--enhanced", type=Path, metavar="DIR", help="files named as in --clean")
    parser.add_argument("--noisy", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True)
    parser.add_argument("--workers", type=int, metavar="N", default=usable_cores())
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that are unusable")
    parser.add_argument(
        "--require-gain", action="store_true", help="status 1 unless every PESQ is above the noisy"
    )
    return parser


if __name__ == "__main__":
    # Stopped like this, too, it ends its worker processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
