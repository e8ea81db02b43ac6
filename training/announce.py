"""What a run says of itself when it starts and when it ends."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from bandsplit.cost import count_macs, count_parameters
from bandsplit.net import BandSplitNet
from training.checkpoint import BEST
from training.progress import duration
from training.trainer import Trainer

log = logging.getLogger("training")


@contextmanager
def session(trainer: Trainer, network: type[BandSplitNet]) -> Iterator[None]:
    """Within it a run is trained: its folder tells how that began, and how it has ended."""
    _introduce(trainer, network)
    ended: Callable[..., None] = trainer.runlog.ended if trainer.runlog else lambda *_: None
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # the disk may be what failed
            ended(trainer.step, error)
        raise
    ended(trainer.step)


def _introduce(trainer: Trainer, network: type[BandSplitNet]) -> None:
    """Say what is going to be trained, and write it down."""
    if not trainer.runlog:
        return
    config, world = trainer.config, trainer.world
    model, device = trainer.learner.model, trainer.device
    parameters, macs = count_parameters(model), count_macs(model)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    log.info(
        f"{config.name}: {parameters:,} parameters, {macs / 1e9:.2f} GMAC per second of audio, "
        f"recipe {config.recipe}, on {place}, mixed precision {trainer.precision.amp}"
    )
    shared = f", shared by {world.size} processes" if world.size > 1 else ""
    batch, crop = config.data.batch_size, config.data.crop_seconds
    log.info(
        f"{trainer.folder}: batches of {batch} x {crop:g} s{shared}, {len(trainer.sampler)} steps "
        f"an epoch, {trainer.schedule.total:,} steps in all, at step {trainer.step:,}"
    )
    facts = {
        "parameters": parameters,
        "macs_per_second": macs,
        "device": str(device),
        "hardware": place if device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}",
        "amp": trainer.precision.amp,
        "processes": world.size,
        "first_step": trainer.step,
    }
    trainer.runlog.describe(network, config, facts)


def sum_up(trainer: Trainer, stopped: bool) -> None:
    """Say how a session has ended."""
    if not trainer.runlog:
        return
    folder = trainer.folder
    spent = duration(time.monotonic() - trainer.progress.started)
    done = f"{trainer.step:,} of {trainer.schedule.total:,} steps"
    log.info(f"{folder}: {'stopped' if stopped else 'ended'} after {done}; this session {spent}")
    if trainer.best > -math.inf:
        log.info(f"best held-out PESQ {trainer.best:.3f}, in {BEST}")
    health = trainer.health
    if health.skipped:
        log.info(f"{health.skipped} steps left out, {health.rollbacks} times gone back")
    if stopped:
        log.info("the same command goes on (without --fresh, if it had that)")
    log.info(f"history: python -m training.runlog {folder}")
