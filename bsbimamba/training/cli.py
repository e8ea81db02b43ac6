"""The command line that the four `train.py` share."""

import argparse
import dataclasses
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import torch
import tyro
from tqdm.contrib.logging import logging_redirect_tqdm
from tyro.conf import FlagCreatePairsOff, arg

from bsbimamba.data.voicebank import FOLDER
from bsbimamba.data.workers import STOP_SIGNALS, end_children, stop_by_signals
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.checkpoint import BEST
from bsbimamba.training.config import (
    RECIPES,
    Config,
    check_model,
    network_defaults,
    override,
    require,
)
from bsbimamba.training.distributed import World, join
from bsbimamba.training.loop import Trainer
from bsbimamba.training.sources import make_datasets
from bsbimamba.utils import ROOT, FailedError, carry_out

log = logging.getLogger("training")

SAMPLE = ROOT / "data" / "sample"
STOPPED = 75  # "try again later", of sysexits.h: a scheduler can put back a job that ends with it
Preset = tuple[type[BandSplitNet], Config]

_SOURCE = tyro.conf.create_mutex_group(required=False)


@dataclass(frozen=True)
class Options:
    """The flags beside the settings. The same command continues where a run stopped."""

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
    """save and stop after the step that ends then; the same command continues"""


def main(
    network: type[BandSplitNet],
    config: Config,
    presets: Mapping[str, Preset] | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Train `network` as `config` and the command line say; end the process with its status.

    Status 0: trained, as far as was asked for. 75: stopped by SIGINT, SIGTERM, SIGUSR1, SIGHUP or
    --minutes, and saved; the same command continues. 130: stopped by a second Ctrl-C, or before
    training began. 1: training failed. 2: something is wrong with the command line, the data or the
    run folder. A message on stderr says what.

    Args:
        network, config: of this `train.py`.
        presets: further networks and configurations, for `--preset NAME`.
        arguments: in place of `sys.argv[1:]`.
    """
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:
        stop_by_signals()

    def work() -> int:
        chosen, options = parse(network, config, presets or {}, words)
        with logging_redirect_tqdm(), join() as world:
            if not world.is_main:
                log.setLevel(logging.WARNING)
            deadline = started + 60 * options.minutes
            return STOPPED if _train(chosen, options, world, deadline) else 0

    rank = os.environ.get("RANK", "0")
    status = carry_out("train.py" if rank == "0" else f"train.py (rank {rank})", work)
    end_children()
    if status:
        raise SystemExit(status)


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
    network, config = presets.get(chosen.preset, (network, config))
    if chosen.recipe in RECIPES:
        config = override(config, {"recipe": chosen.recipe, **RECIPES[chosen.recipe]})

    defaults = network_defaults(network)
    hints = get_type_hints(network.__init__)
    fields = [(name, hints[name], default) for name, default in defaults.items()]
    model = dataclasses.make_dataclass("Model", fields, frozen=True)
    known = [
        ("model", model, dataclasses.field(default=model(**config.model))),
        ("recipe", Literal[tuple(RECIPES)], "default"),
        *([("preset", Literal[tuple(presets)] | None, None)] if presets else []),
    ]
    kind = dataclasses.make_dataclass("Options", known, bases=(Options,), frozen=True)
    options: Any = tyro.cli(
        kind,
        prog="train.py",
        description=f"Train {config.name}. Run again with the same arguments to continue where it "
        "stopped. Exit status: 0 done, 75 stopped by a signal or --minutes and saved, 1 failed, "
        "2 wrong input.",
        args=words,
        default=kind(config),
    )
    require(options.minutes > 0, f"--minutes is {options.minutes}, expected more than 0")
    changes = {
        f"model.{name}": value
        for name, value in vars(options.model).items()
        if name in config.model or value != defaults[name]
    }
    mix = (SAMPLE / "clean", SAMPLE / "noise") if options.sample else options.mix
    if mix:
        clean, noise = map(os.path.abspath, mix)
        changes |= {"data.source": "mix", "data.clean": clean, "data.noise": noise}
    else:
        root = os.path.abspath(options.root or FOLDER)
        changes |= {"data.source": "pairs", "data.root": root}
    config = override(options.config, changes)
    check_model(config, defaults)
    return network, dataclasses.replace(options, config=config)


@contextmanager
def stop_on_signal(deadline: float = math.inf) -> Iterator[Callable[[], bool]]:
    """Yield a function that is true after SIGINT, SIGTERM, SIGUSR1 or SIGHUP, or the deadline.

    A second Ctrl-C raises KeyboardInterrupt, if it comes a second later or more: the terminal and
    torchrun may both send the first. A signal that is ignored (as SIGHUP under nohup) stays so.

    deadline: by `time.monotonic()`.
    """
    first: list[float] = []

    def note(number: int, frame: Any) -> None:
        if not first:
            first.append(time.monotonic())
            log.warning("stopping after this step; Ctrl-C (again) to stop at once, without saving")
        elif number == signal.SIGINT and time.monotonic() - first[0] > 1:
            raise KeyboardInterrupt

    heeded = [n for n in STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield lambda: bool(first) or time.monotonic() >= deadline
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _train(network: type[BandSplitNet], options: Options, world: World, deadline: float) -> bool:
    """Train; return whether that was stopped."""
    config, folder = options.config, options.folder or ROOT / "runs" / options.config.name
    require(folder.is_dir() or not folder.exists(), f"{folder} is not a folder")
    with world.local_main_first():  # the others read its index
        train, valid = make_datasets(config, options.skip_bad)
    # A job that Slurm or torchrun has started again continues, whatever its command says.
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    fresh = options.fresh and all(os.environ.get(name, "0") == "0" for name in counts)
    try:
        with closing(Trainer(network, config, train, valid, folder, fresh, world)) as trainer:
            trainer.describe()
            with stop_on_signal(deadline) as stopped:
                ended = "stopped" if trainer.fit(stopped) else "ended"
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise FailedError(
            "out of memory; try --accumulate 2, --model.use-checkpoint full, or a smaller "
            f"--batch-size or --crop ({error or type(error).__name__})"
        ) from None
    log.info(
        f"{folder}: {ended} after {trainer.step:,} of {trainer.schedule.total:,} steps; "
        f"{trainer.health.skipped} skipped"
        + (f"; best held-out PESQ {trainer.best:.3f}, in {BEST}" if trainer.validated else "")
        + ("; the same command continues (without --fresh)" if ended == "stopped" else "")
    )
    return ended == "stopped"
