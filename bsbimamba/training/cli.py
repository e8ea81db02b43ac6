"""The command line that the four `train.py` share."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import torch
import tyro
from tqdm.contrib.logging import logging_redirect_tqdm
from tyro.conf import FlagCreatePairsOff, arg

from bsbimamba.data.voicebank import FOLDER
from bsbimamba.data.workers import end_children
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.checkpoint import BEST, CheckpointError
from bsbimamba.training.config import (
    RECIPES,
    Config,
    ConfigError,
    check_model,
    network_defaults,
    override,
    require,
    suggestion,
)
from bsbimamba.training.distributed import World, join
from bsbimamba.training.interruptions import stop_at_once
from bsbimamba.training.loop import Trainer, TrainingError
from bsbimamba.training.sources import make_datasets
from bsbimamba.utils import ROOT, DataError

log = logging.getLogger("training")

SAMPLE = ROOT / "data" / "sample"
STOPPED = 75  # "try again later", of sysexits.h: a scheduler can put back a job that ends with it
Preset = tuple[type[BandSplitNet], Config]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_LESS_MEMORY = "--batch-size, --crop or --model.use-checkpoint full"
_SOURCE = tyro.conf.create_mutex_group(required=False)


@dataclass(frozen=True)
class Options:
    """The flags beside the settings. The same command goes on where a run stopped."""

    config: Annotated[Config, arg(name="")]
    root: Annotated[Path | None, arg(name="data", metavar="ROOT"), _SOURCE] = None
    """a corpus of pairs, train/{clean,noisy} (default: data/voicebank_demand)"""
    mix: Annotated[tuple[Path, Path] | None, arg(metavar="CLEAN NOISE"), _SOURCE] = None
    """two folders, mixed on the fly"""
    sample: Annotated[FlagCreatePairsOff[bool], _SOURCE] = False
    """the recordings that come with this program, mixed on the fly"""
    # torchrun takes a flag `--run` for an abbreviation of one of its own.
    folder: Annotated[Path | None, arg(name="run", aliases=["--run-folder"], metavar="DIR")] = None
    """run folder (default: runs/ and the network's name)"""
    fresh: FlagCreatePairsOff[bool] = False
    """clear the run folder first"""
    skip_bad: FlagCreatePairsOff[bool] = False
    """leave out files that are unusable"""
    minutes: float = math.inf
    """save and stop after the step that ends then; the same command goes on"""
    preset: str | None = None
    """a control network"""
    recipe: str | None = None
    """how it is trained"""


def main(
    network: type[BandSplitNet],
    config: Config,
    presets: Mapping[str, Preset] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Train `network` as `config` and the command line say; end the process with its status.

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
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        network, options = parse(network, config, presets or {}, words)
        with stop_at_once(STOPPED), join() as world, logging_redirect_tqdm():
            if not world.is_main:
                log.setLevel(logging.WARNING)
            stopped = _train(network, options, world, started + 60 * options.minutes)
    except (ConfigError, DataError, CheckpointError) as error:
        _fail(2, error)
    except TrainingError as error:
        _fail(1, error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        what = str(error) or type(error).__name__
        _fail(1, f"out of memory; less is needed with another {_LESS_MEMORY} ({what})")
    except KeyboardInterrupt:
        _fail(130, "interrupted; what is saved is from before")
    finally:
        end_children()
    if stopped:
        raise SystemExit(STOPPED)


def parse(
    network: type[BandSplitNet], config: Config, presets: Mapping[str, Preset], words: Sequence[str]
) -> tuple[type[BandSplitNet], Options]:
    """Return the network and the options that a command line asks for.

    Settings begin as those of the preset, are changed by the recipe, and then by flags.

    Raises:
        ConfigError: a setting is wrong. SystemExit: a flag is, which tyro has explained.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--recipe")
    chosen = first.parse_known_args(words)[0]
    for name, known in ((chosen.preset, presets), (chosen.recipe, RECIPES)):
        if name is not None:
            require(name in known, f"unknown name {name!r}{suggestion(name, known)}")
    if chosen.preset:
        network, config = presets[chosen.preset]
    if chosen.recipe:
        config = override(config, {"recipe": chosen.recipe, **RECIPES[chosen.recipe]})

    defaults = network_defaults(network)
    hints = get_type_hints(network.__init__)
    fields = [(name, hints[name], default) for name, default in defaults.items()]
    model = dataclasses.make_dataclass("Model", fields, frozen=True)
    kind = dataclasses.make_dataclass(
        "Options", [("model", model, dataclasses.field(default=model(**config.model)))],
        bases=(Options,), frozen=True,
    )  # fmt: skip
    options: Any = tyro.cli(
        kind,
        prog="train.py",
        description=f"Train {config.name}. Presets: {', '.join(presets) or 'none'}; recipes: "
        f"{', '.join(RECIPES)}. Run again with the same arguments to go on where it stopped. Exit "
        "status: 0 done, 75 stopped by a signal or --minutes and saved, 1 failed, 2 wrong input.",
        args=words,
        default=kind(config),
    )
    require(options.minutes > 0, f"--minutes is {options.minutes}, expected more than 0")
    changes = {
        f"model.{name}": value
        for name, value in vars(options.model).items()
        if name in config.model or value != defaults[name]
    }
    config = override(options.config, changes | _places(options))
    check_model(config, defaults)
    return network, dataclasses.replace(options, config=config)


def _places(options: Options) -> dict[str, str]:
    """Return the settings that say where the data lie."""
    mix = (SAMPLE / "clean", SAMPLE / "noise") if options.sample else options.mix
    if mix:
        clean, noise = map(os.path.abspath, mix)
        return {"data.source": "mix", "data.clean": clean, "data.noise": noise}
    root = os.path.abspath(options.root or FOLDER)
    return {"data.source": "pairs", "data.root": root}


def _train(network: type[BandSplitNet], options: Options, world: World, deadline: float) -> bool:
    """Train; return whether that was stopped by a signal, or by the deadline."""
    config, folder = options.config, options.folder or ROOT / "runs" / options.config.name
    with world.local_main_first():  # the others read from its index
        train, valid = make_datasets(config, options.skip_bad)
    # A job that Slurm or torchrun has started again goes on, whatever its command says.
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    fresh = options.fresh and all(os.environ.get(name, "0") == "0" for name in counts)
    trainer = Trainer(network, config, train, valid, folder, fresh, world)
    try:
        trainer.describe()
        stopped = trainer.fit(deadline=deadline)
    except CheckpointError as error:
        raise TrainingError(f"{error}. What was saved before is untouched.") from None
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise TrainingError(f"{error.filename or folder}: {error.strerror}") from None
    finally:
        trainer.close()
    log.info(
        f"{folder}: {'stopped' if stopped else 'ended'} after {trainer.step:,} of "
        f"{trainer.schedule.total:,} steps; {trainer.health.skipped} skipped"
        + (f"; best held-out PESQ {trainer.best:.3f}, in {BEST}" if trainer.validated else "")
        + ("; the same command goes on (without --fresh)" if stopped else "")
    )
    return stopped


def _fail(status: int, message: object) -> NoReturn:
    rank = os.environ.get("RANK", "0")
    print(f"train.py{f' (rank {rank})' if rank != '0' else ''}: {message}", file=sys.stderr)
    raise SystemExit(status)
