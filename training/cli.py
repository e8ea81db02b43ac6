"""The command line that the four `train.py` share."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from bandsplit.net import BandSplitNet
from data.utils import DataError, is_within
from data.workers import end_children
from training.announce import session, sum_up
from training.checkpoint import CheckpointError
from training.config import RECIPES, Config, ConfigError
from training.distributed import LostError, World, join, leave
from training.interrupt import STOPPED, Interrupted, stop_at_once
from training.progress import quiet_ends
from training.settings import check_model, network_defaults, override, parse_settings, suggestion
from training.sources import make_datasets
from training.trainer import Trainer, TrainingError

log = logging.getLogger("training")

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "sample"
Preset = tuple[type[BandSplitNet], Config]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_SAVING_MEMORY = (
    "A smaller --batch-size or --crop needs less, and so does model.use_checkpoint=full."
)


def main(
    network: type[BandSplitNet],
    config: Config,
    presets: Mapping[str, Preset] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Train `network` as `config` and the command line say; ends the process with its status.

    Status 0: trained, as far as was asked for. 75: stopped by SIGINT, SIGTERM, SIGUSR1, SIGHUP or
    --minutes, and saved; the same command goes on. 130: stopped by a second Ctrl-C, without saving.
    1: training failed. 2: something is wrong with the command line, the data or the run folder. A
    message on stderr says what.

    Args:
        network, config: of this `train.py`.
        presets: further networks and configurations, for `--preset NAME`.
        arguments: in place of `sys.argv[1:]`.
    """
    started = time.monotonic()
    quiet_ends(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser(config.name, presets or {}).parse_args(arguments)
    try:
        with stop_at_once(), join() as world, logging_redirect_tqdm():
            if not world.leads:
                form = logging.Formatter(f"rank {world.rank}: %(message)s")
                for handler in logging.getLogger().handlers:
                    handler.setFormatter(form)
                log.setLevel(logging.WARNING)
            if options.preset is not None:
                network, config = _preset(presets or {}, options.preset)
            config = _configure(network, config, options)
            stopped = _train(network, config, options, world, started + 60 * options.minutes)
    except (ConfigError, DataError, CheckpointError) as error:
        _fail(2, error)
    except (TrainingError, LostError) as error:
        _fail(1, error)
    except Interrupted as error:
        _fail(STOPPED, f"stopped by {error}. The same command goes on from what is saved.")
    except (MemoryError, torch.OutOfMemoryError) as error:
        _fail(1, f"out of memory. {_SAVING_MEMORY} ({str(error) or type(error).__name__})")
    except ValueError as error:  # of the scan, which this package does not know
        if "BSBIMAMBA_SCAN" not in str(error):
            raise
        _fail(2, error)
    except KeyboardInterrupt:
        _fail(130, "interrupted; what is saved is from before")
    except Exception as error:
        leave(1, error)
        raise
    finally:
        end_children()
    if stopped:
        raise SystemExit(STOPPED)


def _train(
    network: type[BandSplitNet],
    config: Config,
    options: argparse.Namespace,
    world: World,
    deadline: float,
) -> bool:
    """Train; whether that was stopped by a signal, or by the deadline."""
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps is {options.steps}, expected at least 1")
    if not options.minutes > 0:
        raise ConfigError(f"--minutes is {options.minutes}, expected more than 0")
    folder = _run_folder(config, options)
    with world.one_first():  # what it finds out of the files, the others read from its index
        train, valid = make_datasets(config, options.skip_bad)
    fresh = options.fresh and not _started_again()
    with _faults_of_disk(folder, ConfigError):
        trainer = Trainer(network, config, train, valid, folder, fresh, world)
    try:
        with _faults_of_disk(folder, TrainingError):
            with session(trainer, network):
                stopped = trainer.fit(deadline=deadline)
            sum_up(trainer, stopped)
        return stopped
    except CheckpointError as error:
        raise TrainingError(f"{error}. What was saved before is untouched.") from None
    finally:
        trainer.close()


@contextmanager
def _faults_of_disk(folder: Path, kind: type[ConfigError | TrainingError]) -> Iterator[None]:
    """Raise, as `kind`, that the run folder cannot be used; let any other error pass."""
    try:
        yield
    except OSError as error:
        path = error.filename  # none is named where an open file cannot be written
        in_folder = isinstance(path, str | Path) and (
            is_within(Path(path), folder) or is_within(folder, Path(path))
        )
        if not in_folder and error.errno not in _DISK:
            raise
        raise kind(f"{path or folder}: {error.strerror}") from None


def _started_again() -> bool:
    """Whether a scheduler or torchrun has started this very command before, and says so."""
    counts = (os.environ.get(n, "0") for n in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    if any(count.isdecimal() and int(count) for count in counts):
        log.warning("this command is started again: --fresh is left out")
        return True
    return False


def _run_folder(config: Config, options: argparse.Namespace) -> Path:
    folder = Path(options.run) if options.run else ROOT / "runs" / config.name
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:  # TensorBoard cannot write to it
        raise ConfigError(f"--run {os.fspath(folder)!a}: the name is no valid text") from None
    return folder


def _configure(network: type[BandSplitNet], config: Config, options: argparse.Namespace) -> Config:
    """The configuration with the command line's changes: recipe, then flags, then `--set`."""
    changes: dict[str, Any] = {}
    if options.recipe is not None:
        if options.recipe not in RECIPES:
            raise ConfigError(
                f"unknown recipe {options.recipe!r}{suggestion(options.recipe, RECIPES)}"
            )
        changes |= {"recipe": options.recipe, **RECIPES[options.recipe]}
    flags = {
        "optim.epochs": options.epochs,
        "optim.steps": options.steps if options.epochs is None else 0,
        "data.batch_size": options.batch_size,
        "data.crop_seconds": options.crop,
        "seed": options.seed,
        "run.accumulate": options.accumulate,
        "run.workers": options.workers,
        "run.device": options.device,
        "run.amp": options.amp,
    }
    changes |= {name: value for name, value in flags.items() if value is not None}
    if options.mix:
        clean, noise = map(os.path.abspath, options.mix)
        changes |= {"data.source": "mix", "data.clean": clean, "data.noise": noise}
    else:
        root = os.path.abspath(options.data or ROOT / "data/voicebank_demand")
        changes |= {"data.source": "pairs", "data.root": root}
    defaults = network_defaults(network)
    config = parse_settings(override(config, changes), options.set, defaults)
    check_model(config, defaults)
    return config


def _preset(presets: Mapping[str, Preset], name: str) -> Preset:
    if name not in presets:
        raise ConfigError(f"unknown preset {name!r}{suggestion(name, presets)}")
    return presets[name]


def _parser(name: str, presets: Mapping[str, Preset]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description=f"Train {name}. Run again with the same arguments to go on where it stopped.",
        epilog="Without --data, --mix or --sample, data/voicebank_demand is trained on. Exit "
        "status: 0 done, 75 stopped by a signal or --minutes and saved, 1 failed, 2 wrong input.",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data", type=_path, metavar="ROOT", help="a corpus of pairs, train/{clean,noisy}"
    )
    source.add_argument(
        "--mix",
        nargs=2,
        type=_path,
        metavar=("CLEAN", "NOISE"),
        help="two folders, mixed on the fly",
    )
    source.add_argument(
        "--sample",
        dest="mix",
        action="store_const",
        const=(SAMPLE / "clean", SAMPLE / "noise"),
        help="the recordings that come with this program, mixed on the fly",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out files that are unusable")
    # Of a flag `--run`, torchrun believes that it is a shortened one of its own.
    parser.add_argument(
        "--run",
        "--run-folder",
        type=_path,
        metavar="DIR",
        help=f"run folder (default: runs/{name})",
    )
    parser.add_argument("--fresh", action="store_true", help="clear the run folder first")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, metavar="N", help="length of the run")
    length.add_argument("--steps", type=int, metavar="N", help="the same in steps")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        metavar="M",
        help="save and stop after the step that ends then; the same command goes on",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="crops of a step, over all processes"
    )
    parser.add_argument(
        "--accumulate", type=int, metavar="N", help="pieces to take a batch in, to save memory"
    )
    parser.add_argument("--crop", type=float, metavar="SECONDS", help="length of training pieces")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--workers", type=int, metavar="N", help="loader processes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), help="mixed precision")
    parser.add_argument("--recipe", metavar="NAME", help=f"one of {', '.join(RECIPES)}")
    listed = ", ".join(presets) or "none here"
    parser.add_argument("--preset", metavar="NAME", help=f"a control network: {listed}")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="any other setting, as in model.d_state=8 optim.learning_rate=1e-3",
    )  # fmt: skip
    return parser


def _path(text: str) -> str:
    """A path, which an unset variable in quotes is not."""
    if not text:
        raise argparse.ArgumentTypeError("a path is expected, and this is empty")
    return text


def _fail(status: int, message: object) -> NoReturn:
    rank = os.environ.get("RANK", "0")
    print(f"train.py{f' (rank {rank})' if rank != '0' else ''}: {message}", file=sys.stderr)
    leave(status)
    raise SystemExit(status)
