"""The one training loop: steps, validations, checkpoints, and what to do when something fails."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bsbimamba.data.dataset import SpeechDataset
from bsbimamba.data.loader import EpochSampler, Loader
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.checkpoint import Checkpoints, copy, understood
from bsbimamba.training.config import Config, require
from bsbimamba.training.distributed import World
from bsbimamba.training.logging import RunLog, clear
from bsbimamba.training.optimizer import Schedule
from bsbimamba.training.pesq import PesqPool
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner, Result, Stateful
from bsbimamba.training.validation import Validator
from bsbimamba.utils import FailedError, hold

log = logging.getLogger("training")


class TrainingError(FailedError):
    """Training cannot go on; the text says why."""


@dataclass
class Health:
    """Counts of steps that were skipped because a number was not finite. A part of the state.

    Attributes:
        skipped: in all. in_a_row: since the last step that was taken.
        rollbacks: how often the run has gone back to its last good state.
    """

    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0

    def report(self) -> str:
        """Return what is known of the skipped steps, and what to try."""
        return (
            f"{self.skipped} steps were skipped for a loss or gradient that is not finite, the "
            f"last {self.in_a_row} in a row; the run went back {self.rollbacks} times, each time "
            "to a smaller learning rate. metrics.jsonl names the files of each skipped step. If "
            "the same files come back, look at them. If not, training diverges: try a smaller "
            "--optim.learning-rate or --optim.clip-ratio, or --amp bf16 or off."
        )

    def state_dict(self) -> dict[str, int]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, int]) -> None:
        for name in vars(self):
            setattr(self, name, int(state[name]))


class Trainer:
    """Train one network on one data set into one run folder.

    Args:
        network: a class of networks; built from `config.model`.
        train, valid: datasets of `data.dataset`; the second gives whole utterances.
        folder: the run folder. A checkpoint in it is continued. The main process alone writes.
        fresh: clear the folder instead, once nothing else can be refused.

    Raises UserError where data, device or folder do not fit the configuration.
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
        require(
            len(train) >= batch,
            f"{len(train)} training files do not fill one batch of {batch}; use a smaller "
            "--batch-size or more data.",
        )
        data = f"{train.fingerprint()}-{valid.fingerprint()}"
        self.sampler = EpochSampler(len(train), batch, config.seed, world.shard(batch))
        self.schedule = Schedule(config, len(self.sampler))
        self.step, self.validated, self.best = 0, 0, -math.inf
        self._saved: tuple[int, int] | None = None  # step and validated of what is saved
        self.health = Health()
        with ExitStack() as closing:
            if world.is_main:
                folder.mkdir(parents=True, exist_ok=True)
                closing.callback(hold(folder, "name another folder with --run").release)
            self.pool = PesqPool(config.run.pesq_workers or world.spare_cores())
            closing.callback(self.pool.close)
            self.learner = Learner(network, config, self.precision, world, self.pool)
            self.validator = Validator(valid, self.pool, self.precision.device, world)
            self.checkpoints = Checkpoints(folder, network, config, data, len(self.sampler))
            if fresh and world.is_main:
                clear(folder)
            logged = self._resume()
            self.runlog = RunLog(folder, self.step, logged) if world.is_main else None
            if self.runlog:
                closing.callback(self.runlog.close)
            self._closing = closing.pop_all()

    @property
    def due(self) -> int:
        """The step to be validated by now: a multiple of `validate_every`, or the last one."""
        if self.step >= self.schedule.total:
            return self.step
        return self.step - self.step % self.config.run.validate_every

    @property
    def rate_factor(self) -> float:
        """What the rollbacks so far multiply the learning rate by."""
        return self.config.optim.rollback_decay**self.health.rollbacks

    def fit(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end of the schedule, or until `stopped` is true, and save.

        `stopped` is asked after every step, and after every utterance of a validation.

        Returns whether training was stopped.

        Raises:
            TrainingError: loss or gradients are not finite, again and again.
            FailedError: a checkpoint cannot be written; those before are untouched.
        """
        pin = self.precision.device.type == "cuda"
        loader = Loader(self.train_set, self.sampler, self.config.run.workers, pin)
        if self._saved is None:  # a full disk or an unfit folder is known before hours of work
            self._save_good()
        going = True
        while going and (self.validated < self.due or self.step < self.schedule.total):
            if self.validated < self.due:
                going = self._validate(stopped)
            else:
                going = self._train(loader, stopped)
        self._save()
        return not going

    def train_step(self, batch: dict[str, Any]) -> Result:
        """Take one step on this process' part of a batch, {"name", "clean", "noisy"}."""
        rate = self.rate_factor * self.schedule.factor(self.step)
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

    def _train(self, loader: Loader, stopped: Callable[[], bool]) -> bool:
        """Train to the epoch's end, the next validation or the fall; False where stopped."""
        epoch, done = divmod(self.step, len(self.sampler))
        if self.step == self.schedule.fall_from:
            self._save()
            if self.world.is_main:
                copy(self.checkpoints.last, self.checkpoints.before_fall)
        saved = time.monotonic()
        self._since = self.step, saved
        bar = tqdm(
            loader.batches(epoch, done), "training", self.schedule.total, initial=self.step,
            leave=False, unit="step", disable=None if self.world.is_main else True,
        )  # fmt: skip
        for batch in bar:
            result = self.train_step(batch)
            self.step += 1
            if result.broken:
                self._skip(epoch, result, batch["name"])
                if self.health.in_a_row >= self.config.optim.skips_in_a_row:
                    self._roll_back()  # the weights are to blame
                    return True
            else:
                self.health.in_a_row = 0
                bar.set_postfix(self._log_step(epoch, result), refresh=False)
            late = time.monotonic() - saved > 60 * self.config.run.save_minutes
            stop, save = self.world.all_reduce_any(stopped(), late and self.world.is_main)
            if stop:
                return False
            if self.validated < self.due or self.step == self.schedule.fall_from:
                return True
            if save:
                self._save()
                saved = time.monotonic()
        return True

    def _log_step(self, epoch: int, result: Result) -> dict[str, float]:
        """Log a step that was taken, if it is its turn; return what the progress bar shows."""
        ends = self.step in (1, self.schedule.total) or self.step % len(self.sampler) == 0
        if self.runlog and (ends or self.step % self.config.run.log_every == 0):
            rate = self.learner.optimizer.param_groups[0]["lr"]
            values = {**result.values, "learning_rate": rate}
            if self.health.skipped:
                values["skipped"] = self.health.skipped
            (before, then), self._since = self._since, (self.step, time.monotonic())
            crops = self.config.data.batch_size * (self.step - before)
            speed = {"crops_per_second": crops / max(self._since[1] - then, 1e-9)}
            if self.precision.device.type == "cuda":
                speed["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self.runlog.record(self.step, epoch, train=values, speed=speed)
        shown = ("loss", "grad_norm", "pesq")
        return {name: result.values[name] for name in shown if name in result.values}

    def _skip(self, epoch: int, result: Result, names: list[str]) -> None:
        """Count and log a step that was not taken, with the files of its batch."""
        self.health.skipped += 1
        self.health.in_a_row += 1
        everywhere = [name for part in self.world.all_gather(names) for name in part]
        if self.runlog:
            values = ", ".join(f"{name} {value}" for name, value in result.broken.items())
            log.warning(f"skipped step {self.step}: {values} in a batch of {', '.join(everywhere)}")
            skipped = {**result.broken, "in_a_row": self.health.in_a_row}
            self.runlog.record(self.step, epoch, skipped=skipped, names=everywhere)

    def _roll_back(self) -> None:
        """Go back to the last good state, with a smaller learning rate."""
        if self.health.rollbacks >= self.config.optim.rollbacks:
            raise TrainingError(self.health.report())
        before, skipped = self.step, self.health.in_a_row
        self._resume(good=True)
        self.health.in_a_row = 0
        self.health.rollbacks += 1
        if self.runlog:
            log.warning(
                f"{skipped} steps in a row were skipped: back to step {self.step}, with "
                f"{self.rate_factor:g} times the learning rate"
            )
            rollback = {"from": before, "rate_factor": self.rate_factor}
            self.runlog.record(self.step, self.step // len(self.sampler), rollback=rollback)
        self._saved = None
        self._save()  # or after a crash the rollback would be forgotten

    def _validate(self, stopped: Callable[[], bool]) -> bool:
        """Score the averaged weights; False where that was stopped."""
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
            epoch = self.step // len(self.sampler)
            self.runlog.validation(self.step, epoch, scores, samples, better)
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
        """Write a checkpoint to roll back to, unless its last steps had to be skipped."""
        self._save()
        if self.world.is_main and not self.health.in_a_row:
            copy(self.checkpoints.last, self.checkpoints.good)

    def _resume(self, good: bool = False) -> int:
        """Load the newest checkpoint, if there is one; return the size of its log.

        good: load the last good one, and keep the counts of what went wrong since.
        """
        kept, found = self.checkpoints, None
        if self.world.is_main:
            found = kept.whole(kept.good, kept.last, kept.previous) if good else kept.newest()
        found = self.world.broadcast(found)
        if found is None:
            return 0
        path, state = found
        with understood(path):
            for name, part in (self.learner.parts() if good else self._parts()).items():
                part.load_state_dict(state[name])
            values = state["values"]
            self.step, self.validated = int(values["step"]), int(values["validated"])
            self.best, logged = max(self.best, float(values["best"])), int(values["logged"])
        self._saved = (self.step, self.validated)
        return logged
