"""Score trained runs, or any system's files, against clean speech; compare them in a table.

    python evaluate.py RUN... --data ROOT --out DIR
    python evaluate.py --clean DIR --enhanced DIR [--noisy DIR] --out DIR

Writes DIR/per_file.csv, DIR/summary.json and DIR/table.md, and prints the table. A run's enhanced
files are kept in DIR/enhanced/RUN. Status 0: done; 1: `--require-gain` is not met; 2: something is
wrong with the command line or the data, as a message on stderr says.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from bandsplit.cost import count_macs, count_parameters
from bandsplit.net import BandSplitNet
from data.audio import read, write
from data.corpus import Pair, find_recordings, load_pairs
from data.errors import DataError
from data.workers import usable_cores
from evaluation.report import System, write_report
from evaluation.scoring import Task, score_files
from training.checkpoint import CheckpointError, load_trained
from training.config import ConfigError
from training.precision import Precision

NOISY = "noisy"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_usage(parser, options)
    try:
        systems = _score_runs(options) if options.runs else _score_folders(options)
        table = write_report(options.out, systems, str(options.data or options.enhanced))
    except (DataError, CheckpointError, ConfigError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or options.out}: {error.strerror or error}"
    except KeyboardInterrupt:
        return 130
    else:
        print(table, end="")
        return _check_gain(systems) if options.require_gain else 0
    print(f"evaluate.py: {message}", file=sys.stderr)
    return 2


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if bool(options.runs) == bool(options.enhanced):
        parser.error("name runs and --data, or --clean and --enhanced")
    if options.runs and not options.data:
        parser.error("runs are scored on a corpus: --data ROOT")
    if options.enhanced and not options.clean:
        parser.error("--enhanced needs --clean")
    if options.require_gain and not (options.runs or options.noisy):
        parser.error("--require-gain needs --noisy")
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}, expected at least 1")


def _score_runs(options: argparse.Namespace) -> list[System]:
    """The noisy recordings first, then each run."""
    device = Precision(options.device, "off").device
    # All that can be wrong is found before hours may be spent on the first run.
    runs = {
        name: load_trained(run)
        for name, run in zip(_names(options.runs), options.runs, strict=True)
    }
    pairs = load_pairs(options.data, "test", options.skip_bad)
    noisy = [Task(pair.name, pair.clean, pair.noisy) for pair in pairs]
    systems = [System(NOISY, score_files(noisy, options.workers, NOISY))]
    for name, trained in runs.items():
        facts = {
            "parameters": count_parameters(trained.network),
            "macs_per_second": count_macs(trained.network),
            "checkpoint": trained.checkpoint,
            "step": trained.step,
            "seed": trained.config.seed,
            "recipe": trained.config.recipe,
        }
        folder = options.out / "enhanced" / name
        files = _enhance(trained.network.to(device), pairs, folder, name)
        systems.append(System(name, score_files(files, options.workers, name), facts))
    return systems


def _score_folders(options: argparse.Namespace) -> list[System]:
    """Files of any other system, and the noisy ones if they are named."""
    clean = find_recordings(options.clean)
    systems = []
    for name, folder in ((NOISY, options.noisy), (options.enhanced.name, options.enhanced)):
        if folder is not None:
            files = find_recordings(folder)
            if not files.keys() & clean.keys():
                raise DataError(f"{folder}: no file is named as one in {options.clean} is")
            tasks = [
                Task(utterance, path, files.get(utterance)) for utterance, path in clean.items()
            ]
            systems.append(System(name, score_files(tasks, options.workers, name)))
    return systems


def _enhance(network: BandSplitNet, pairs: Sequence[Pair], folder: Path, title: str) -> list[Task]:
    """Enhance every noisy file whole, into `folder` as 32-bit float wav."""
    device = next(network.parameters()).device
    tasks = []
    for pair in tqdm(pairs, desc=f"enhancing by {title}"):
        noisy = torch.from_numpy(read(pair.noisy)[: pair.frames])
        path = folder / f"{pair.name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, network.enhance(noisy[None].to(device))[0].cpu().numpy(), "FLOAT")
        tasks.append(Task(pair.name, pair.clean, path))
    return tasks


def _check_gain(systems: Sequence[System]) -> int:
    """Status 0 if every system's mean PESQ is above the noisy recordings', else 1."""
    floor = next(system.mean("pesq_wb") for system in systems if system.name == NOISY)
    behind = [s.name for s in systems if s.name != NOISY and not s.mean("pesq_wb") > floor]
    if behind:
        print(f"not above the noisy PESQ: {', '.join(behind)}", file=sys.stderr)
    return 1 if behind else 0


def _names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with the folder above where that is not enough."""
    folders = [(run if run.is_dir() else run.parent).resolve() for run in runs]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names) or NOISY in names:
        names = [f"{folder.parent.name}-{folder.name}" for folder in folders]
    if len(set(names)) < len(names):
        raise DataError("two of the runs have the same name; rename one's folder")
    return names


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
    raise SystemExit(main())
