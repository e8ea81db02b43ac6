"""The one training loop: steps, validations, checkpoints, and what to do when something fails."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bsbimamba.data.dataset import SpeechDataset
from bsbimamba.data.loader import EpochSampler, Loader
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.checkpoint import (
    DAMAGED,
    CheckpointError,
    Checkpoints,
    config_of,
    name_of,
    read,
    understood,
    unpack,
)
from bsbimamba.training.config import PLACES, Config, ConfigError, flatten
from bsbimamba.training.distributed import World
from bsbimamba.training.interruptions import Health, stop_on_signal
from bsbimamba.training.logging import Progress, RunLog, clear
from bsbimamba.training.optimizer import Schedule
from bsbimamba.training.pesq import PesqPool
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner, Result, Stateful
from bsbimamba.training.validation import Validator
from bsbimamba.utils import hold

log = logging.getLogger("training")


class TrainingError(Exception):
    """Training cannot go on; the text says why."""


class Trainer:
    """Train one network on one data set into one run folder.

    Args:
        network: a class of networks; built from `config.model`.
        train, valid: datasets of `data.dataset`; the second gives whole utterances.
        folder: the run folder. A checkpoint in it is continued. The main process alone writes.
        fresh: clear the folder instead, once nothing else can be refused.

    Raises:
        ConfigError: the data do not fill one batch, or it cannot be shared, or the device is not
            there, or `fresh` would clear a folder of something else, or the processes differ.
        CheckpointError: the folder's checkpoint is of another network or configuration.
        DataError: another process is training in the folder.
    """

    def __init__(
        self,
        network: type[BandSplitNet],
        config: Config,
        train: SpeechDataset,
        valid: SpeechDataset,
        folder: Path,
        fresh: bool = False,
        world: World | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.train_set, self.valid_set = train, valid
        self.world = world = world or World()
        self.precision = Precision(config.run.device, config.run.amp)
        batch = config.data.batch_size
        if len(train) < batch:
            raise ConfigError(
                f"{len(train)} training files do not fill one batch of {batch}; "
                "use a smaller --batch-size or more data."
            )
        data = f"{train.fingerprint()}-{valid.fingerprint()}"
        settings = {k: v for k, v in flatten(config).items() if k not in PLACES}
        world.check_same({"network": name_of(network), **settings, "the data files": data})
        self.sampler = EpochSampler(len(train), batch, config.seed, world.shard(batch))
        self.schedule = Schedule(config, len(self.sampler))
        self.step, self.validated, self.best = 0, 0, -math.inf
        self._saved: tuple[int, int] | None = None  # step and validated of what is saved
        self.health = Health(config.optim)
        with ExitStack() as closing:
            if world.is_main:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise ConfigError(f"{folder}: {error.strerror}") from None
                closing.callback(hold(folder, "name another folder with --run").release)
            self.pool = PesqPool(config.run.pesq_workers or world.spare_cores())
            closing.callback(self.pool.close)
            self.learner = Learner(network, config, self.precision, world, self.pool)
            self.validator = Validator(valid, self.pool, self.precision.device, world)
            self.checkpoints = Checkpoints(folder, network, config, data)
            if fresh and world.is_main:
                clear(folder)
            logged = self._resume()
            self.runlog = RunLog(folder, self.step, logged) if world.is_main else None
            if self.runlog:
                closing.callback(self.runlog.close)
            self._closing = closing.pop_all()

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // len(self.sampler)

    @property
    def due(self) -> int:
        """The step to be validated by now: a multiple of `validate_every`, or the last one."""
        if self.step >= self.schedule.total:
            return self.step
        return self.step - self.step % self.config.run.validate_every

    def fit(self, max_steps: int | None = None, deadline: float = math.inf) -> bool:
        """Train to the end of the schedule.

        max_steps: stop at so many steps in all. deadline: stop then, by `time.monotonic()`.

        Returns whether it was interrupted or ran out of time. Everything is saved in any case.

        Raises:
            TrainingError: loss or gradients are not finite, again and again.
            CheckpointError: a checkpoint cannot be written; those before are untouched.
        """
        total = self.schedule.total
        last_step = total if max_steps is None else min(total, max_steps)
        device = self.precision.device
        loader = Loader(
            self.train_set, self.sampler, self.config.run.workers, device.type == "cuda"
        )
        batch = self.config.data.batch_size
        self.progress = Progress(self.world.is_main, total, batch, device)
        self._closing.callback(self.progress.close)
        with stop_on_signal(deadline) as stopped:
            if self._saved is None:  # a full disk or an unfit folder is known before hours of work
                self._save_good()
            going = True
            while going:
                if self.validated < self.due:
                    going = self._validate(stopped)
                elif self.step < last_step:
                    if self.step == self.schedule.fall_from:
                        self._save()
                        if self.world.is_main:
                            self.checkpoints.copy_last(self.checkpoints.before_fall)
                    going = self._train(loader, last_step, stopped)
                else:
                    break
            self._save()  # still within: a signal must not hit the save itself
        return not going

    def train_step(self, batch: dict[str, Any]) -> Result:
        """Take one step on this process' part of a batch, {"name", "clean", "noisy"}."""
        rate = self.health.rate_factor * self.schedule.factor(self.step)
        return self.learner.step(batch, self.step, rate, self.step >= self.schedule.metric_from)

    def describe(self) -> None:
        """Log what is going to be trained, and write it to `config.json`."""
        if self.runlog:
            world, amp = self.world.size, self.precision.amp
            self.runlog.describe(self.learner.model, self.config, amp, world, self.step)
            log.info(
                f"{self.folder}: {len(self.sampler)} steps an epoch, {self.schedule.total:,} steps "
                f"in all, at step {self.step:,}"
            )

    def close(self) -> None:
        """End worker processes and log, and unlock the folder."""
        self._closing.close()

    def _train(self, loader: Loader, last_step: int, stopped: Callable[[], bool]) -> bool:
        """Train to the epoch's end, the next validation or the fall; False where interrupted."""
        epoch, done = self.epoch, self.step % len(self.sampler)
        every = self.config.run.validate_every
        until = min(last_step, self.step - self.step % every + every)
        if self.step < self.schedule.fall_from:
            until = min(until, self.schedule.fall_from)
        self.progress.start(self.step)
        saved = time.monotonic()
        for batch in loader.batches(epoch, done):
            result = self.train_step(batch)
            self.step += 1
            if result.broken:
                self._skip(result, batch["name"])
                if self.health.diverged:
                    self._roll_back()
                    return True
            else:
                self.health.in_a_row = 0
                self._log_step(epoch, result)
            late = time.monotonic() - saved > 60 * self.config.run.save_minutes
            stop, save = self.world.all_reduce_any(stopped(), late and self.world.is_main)
            if stop:
                return False
            if self.step >= until:
                return True
            if save:
                self._save()
                saved = time.monotonic()
        return True

    def _log_step(self, epoch: int, result: Result) -> None:
        values = None
        ends = self.step in (1, self.schedule.total) or self.step % len(self.sampler) == 0
        if self.runlog and (ends or self.step % self.config.run.log_every == 0):
            rate = self.learner.optimizer.param_groups[0]["lr"]
            values = {**result.values, "learning_rate": rate}
            if self.health.skipped:
                values["skipped"] = self.health.skipped
            speed = self.progress.measure(self.step)
            self.runlog.record(self.step, epoch, train=values, speed=speed)
        self.progress.show(self.step, values)

    def _skip(self, result: Result, names: list[str]) -> None:
        """Count and log a step that was not taken, with the files of its batch."""
        self.health.skip()
        everywhere = [name for part in self.world.all_gather(names) for name in part]
        if self.runlog:
            values = ", ".join(f"{name} {value}" for name, value in result.broken.items())
            files = ", ".join(everywhere)
            log.warning(f"skipped step {self.step}: {values} in a batch of {files}")
            skipped = {**result.broken, "in_a_row": self.health.in_a_row}
            self.runlog.record(self.step, self.epoch, skipped=skipped, names=everywhere)

    def _roll_back(self) -> None:
        """Go back to the last good state, with a smaller learning rate."""
        if self.health.rollbacks_exhausted:
            raise TrainingError(self.health.report())
        values: dict[str, float] = {"from": self.step}
        self._resume(good=True)
        self.health.roll_back()
        if self.runlog:
            values["rate_factor"] = self.health.rate_factor
            log.warning(
                f"{self.config.optim.skips_in_a_row} steps in a row were skipped: back to step "
                f"{self.step}, with {values['rate_factor']:g} times the learning rate"
            )
            self.runlog.record(self.step, self.epoch, rollback=values)
        self._saved = None
        self._save()  # or after a crash it would not be known

    def _validate(self, stopped: Callable[[], bool]) -> bool:
        """Score the averaged weights; False where that was interrupted."""
        self._save()  # validation may be long, and may be what a time limit hits
        found = self.validator.scores(self.learner.ema.model, stopped)
        if found is None:
            return False
        scores, samples = found
        self.validated = self.due
        better = scores["pesq_wb"] > self.best
        if better:
            self.best = scores["pesq_wb"]
        if self.runlog:
            self.runlog.validation(self.step, self.epoch, scores, samples, better)
        if better:
            self._save(best=True)
        self._save_good()
        return True

    def _parts(self) -> dict[str, Stateful]:
        return {**self.learner.parts(), "health": self.health}

    def _save(self, best: bool = False) -> None:
        """Write a checkpoint, unless this very state has been saved; all processes must call it."""
        now = (self.step, self.validated)
        if not best and now == self._saved:
            return
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        if self.runlog:
            state["values"] = {
                "step": self.step,
                "epochs": self.step / len(self.sampler),
                "validated": self.validated,
                "best": self.best,
                "logged": self.runlog.size(),
                "held_out": self.valid_set.speakers(),
            }
            self.checkpoints.save(state, best)
            self.runlog.saved(self.step)
        if not best:
            self._saved = now

    def _save_good(self) -> None:
        """Write a checkpoint to go back to, unless its last steps had to be skipped."""
        self._save()
        if self.world.is_main and not self.health.in_a_row:
            self.checkpoints.copy_last(self.checkpoints.good)

    def _resume(self, good: bool = False) -> int:
        """Load the newest checkpoint, if there is one; return the size of its log.

        good: load the last good one, and forget nothing of what went wrong since.
        """
        kept = self.checkpoints
        found = self.world.broadcast(kept.newest(good) if self.world.is_main else None)
        if found is None:
            return 0
        path, content = found
        state, aside = unpack(content, path), DAMAGED
        kept.check(state, path)
        earlier = Schedule(config_of(state, path), len(self.sampler))
        # Up to this step, the run that is continued and the one that is asked for are the same.
        common = min(earlier.settled, self.schedule.settled)
        with understood(path):
            best = float(state["values"]["best"])  # as `best.pt` holds it
            beyond = int(state["values"]["step"]) > common
        if earlier.total != self.schedule.total and beyond:
            why = (
                f"{path} is of a run of {earlier.total:,} steps. One of {self.schedule.total:,} "
                f"would have been the same up to step {common:,} only"
            )
            path, aside = kept.before_fall, f"last-{earlier.total}.pt"
            content = self.world.broadcast(
                read(path) if self.world.is_main and path.is_file() else None
            )
            state = unpack(content, path) if content else {"values": {"step": math.inf}}
            if state["values"]["step"] > common:
                raise CheckpointError(
                    f"{why}, and there is no checkpoint from before that. Name another folder with "
                    "--run, or the same number of steps."
                )
        with understood(path):
            for name, part in (self.learner.parts() if good else self._parts()).items():
                part.load_state_dict(state[name])
            values = state["values"]
            self.step, self.validated = int(values["step"]), int(values["validated"])
            self.best, logged = max(self.best, best, float(values["best"])), int(values["logged"])
        if self.world.is_main and path not in (kept.last, kept.good):
            if path == kept.previous:
                log.warning(f"{kept.last} is damaged: going on from the checkpoint before it")
                kept.make_last(content, aside)
            else:
                log.info(
                    f"{self.folder}: a run of another length: it goes on from before the learning "
                    f"rate fell; what the run of {earlier.total} steps came to is kept as {aside}"
                )
                kept.rewind(content, aside)
        self._saved = (self.step, self.validated)
        return logged
