"""The one training loop: steps, validations, checkpoints, and what to do when something fails."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bandsplit.net import BandSplitNet
from data.dataset import SpeechDataset
from data.loader import EpochSampler, Loader
from data.utils import hold
from training.checkpoint import CheckpointError, Keeper, config_of, name_of, read, unpack
from training.config import PLACES, Config, ConfigError, flatten
from training.distributed import World
from training.interruptions import Health, stop_on_signal
from training.logging import Progress, RunLog, clear
from training.optimizer import Schedule
from training.pesq import PesqPool
from training.precision import Precision
from training.step import Learner, Result, Stateful
from training.validation import Validator

log = logging.getLogger("training")


class TrainingError(Exception):
    """Training cannot go on; the text says why."""


class Trainer:
    """Trains one network on one data set into one run folder.

    Args:
        network: a class of networks; built from `config.model`.
        config: of the run.
        train, valid: datasets of `data.dataset`; the second gives whole utterances.
        folder: the run folder. A checkpoint in it is continued. The main process alone writes.
        fresh: clear the folder instead, once nothing else can be refused.
        world: the processes that train together.

    Raises:
        ConfigError: the data do not fill one batch, or it cannot be shared, or the device is not
            there, or `fresh` would clear a folder of something else, or the processes differ.
        CheckpointError: the folder's checkpoint is of another network or configuration, or another
            process is training in the folder.
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
        self.device = self.precision.device
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
                folder.mkdir(parents=True, exist_ok=True)
                closing.callback(hold(folder, "name another folder with --run").release)
            self.pool = PesqPool(config.run.pesq_workers or world.spare_cores())
            closing.callback(self.pool.close)
            self.learner = Learner(network, config, self.precision, world, self.pool)
            self.keeper = Keeper(folder, network, config, data)
            if fresh and world.is_main:
                clear(folder)
            logged = self._resume()
            self.runlog = RunLog(folder, self.step, logged) if world.is_main else None
            if self.runlog:
                closing.callback(self.runlog.close)
            self._closing = closing.pop_all()
        self.validator = Validator(valid, self.pool, self.device, world)

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

        Returns:
            Whether it was interrupted or ran out of time. Everything is saved in any case.

        Raises:
            TrainingError: loss or gradients are not finite, again and again.
            CheckpointError: a checkpoint cannot be written; those before are untouched.
        """
        total = self.schedule.total
        last_step = total if max_steps is None else min(total, max_steps)
        pin = self.device.type == "cuda"
        loader = Loader(self.train_set, self.sampler, self.config.run.workers, pin)
        batch = self.config.data.batch_size
        self.progress = Progress(self.world.is_main, total, batch, self.device)
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
                            self.keeper.mark_before_fall()
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
        """Say what is going to be trained, and write it to `config.json`."""
        if self.runlog:
            log.info(
                f"{self.folder}: {len(self.sampler)} steps an epoch, {self.schedule.total:,} steps "
                f"in all, at step {self.step:,}"
            )
            world, amp = self.world.size, self.precision.amp
            self.runlog.describe(self.learner.model, self.config, amp, world, self.step)

    def close(self, error: BaseException | None = None) -> None:
        """End worker processes and log, and unlock the folder. error: what ended the training."""
        if self.runlog:
            with suppress(OSError):  # the disk may be what failed
                self.runlog.ended(self.step, error)
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
            stop, save = self.world.any(stopped(), late and self.world.is_main)
            if stop:
                return False
            if self.step >= until:
                return True
            if save:
                self._save()
                saved = time.monotonic()
        return True

    def _log_step(self, epoch: int, result: Result) -> None:
        places = (self.step in (1, self.schedule.total), self.step % len(self.sampler) == 0)
        values = None
        if self.runlog and (any(places) or self.step % self.config.run.log_every == 0):
            rate = self.learner.optimizer.param_groups[0]["lr"]
            values = {**result.values, "learning_rate": rate}
            if self.health.skipped:
                values["skipped"] = self.health.skipped
            speed = self.progress.measure(self.step)
            self.runlog.record(self.step, epoch, train=values, speed=speed)
        self.progress.show(self.step, values)

    def _skip(self, result: Result, names: list[str]) -> None:
        everywhere = [name for part in self.world.gather(names) for name in part]
        text = self.health.skip(self.step, result.broken, everywhere)
        if self.runlog:
            log.warning(f"skipped {text}")
            values = {**result.broken, "in_a_row": self.health.in_a_row}
            self.runlog.record(self.step, self.epoch, skipped=values, names=everywhere)

    def _roll_back(self) -> None:
        """Go back to the last good state, with a smaller learning rate."""
        if self.health.rollbacks_exhausted:
            raise TrainingError(self.health.report())
        step, best, health = self.step, self.best, self.health.state_dict()
        self._resume(good=True)
        self.best = max(best, self.best)  # as `best.pt` holds it
        # What happened since then is not forgotten.
        self.health.load_state_dict({**health, "in_a_row": 0, "rollbacks": health["rollbacks"] + 1})
        if self.runlog:
            factor = self.health.rate_factor
            log.warning(
                f"{health['in_a_row']} steps in a row were skipped: back to step {self.step}, with "
                f"{factor:g} times the learning rate"
            )
            values = {"from": step, "rate_factor": factor}
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
            log.info(
                "step {step}: PESQ {pesq_wb:.3f} (noisy {noisy_pesq_wb:.3f}), STOI {stoi:.4f} "
                "(noisy {noisy_stoi:.4f}) over {scored} of {files} held-out utterances".format(
                    step=self.step, **scores
                )
                + (", the best so far" if better else "")
            )
            self.runlog.record(self.step, self.epoch, valid=scores)
            for name, recordings in samples.items():
                self.runlog.sample(self.step, name, recordings)
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
            self.keeper.save(state, best)
            self.runlog.saved()
        if not best:
            self._saved = now

    def _save_good(self) -> None:
        """Write a checkpoint to go back to, unless its last steps had to be skipped."""
        self._save()
        if self.world.is_main and not self.health.in_a_row:
            self.keeper.mark_good()

    def _resume(self, good: bool = False) -> int:
        """Load the newest (good) checkpoint, if there is one; return the size of its log."""
        found = self.world.from_main(self.keeper.load(good) if self.world.is_main else None)
        if found is None:
            return 0
        path, content = found
        state = unpack(content, path)
        values = self.keeper.restore(path, state, self._parts())
        earlier = Schedule(config_of(state, path), len(self.sampler))
        # Up to this step, the run that is continued and the one that is asked for are the same.
        common = min(earlier.settled, self.schedule.settled)
        lengthened = earlier.total != self.schedule.total and values["step"] > common
        if lengthened:
            best = values["best"]  # as `best.pt` holds it
            values = self._restore_before_fall(path, earlier.total, common)
            values["best"] = max(best, values["best"])
        if self.world.is_main and not good:
            self.keeper.settle(path)
            if lengthened:
                self.keeper.rewind(earlier.total)
        self.step, self.validated, self.best = (
            values[name] for name in ("step", "validated", "best")
        )
        self._saved = (self.step, self.validated)
        return values["logged"]

    def _restore_before_fall(self, path: Path, earlier: int, common: int) -> dict[str, Any]:
        """Restore the state from before the fall of a run that is asked to end at a later step.

        path, earlier: the checkpoint that the run came to, and the steps that it was to take.
        common: the step up to which the two runs are the same.

        Raises:
            CheckpointError: there is no state from which the two would be the same.
        """
        before = self.keeper.before_fall
        longer = self.schedule.total > earlier
        found = self.world.from_main(
            read(before) if self.world.is_main and longer and before.is_file() else None
        )
        state = unpack(found, before) if found else None
        if state is None or state["values"]["step"] > common:
            why = "there is no checkpoint from before that" if longer else "it has gone beyond that"
            raise CheckpointError(
                f"{path} is of a run of {earlier:,} steps. One of {self.schedule.total:,} would "
                f"have been the same up to step {common:,} only, and {why}. Name another folder "
                "with --run, or the same number of steps."
            )
        return self.keeper.restore(before, state, self._parts())
