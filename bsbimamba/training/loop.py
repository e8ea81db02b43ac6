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
from bsbimamba.training.pesq import PesqPool, label_on_device
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner, Result
from bsbimamba.training.validation import Validator
from bsbimamba.utils import FailedError, hold

log = logging.getLogger("training")

_QUIET = 60  # s at least between the log's lines of steps, where no terminal shows a bar


@dataclass
class Health:
    """Counts of steps that were skipped because a number was not finite.

    Attributes:
        skipped: in all. in_a_row: since the last step that was taken.
        rollbacks: how often the run has gone back to its last good state.
    """

    skipped: int = 0
    in_a_row: int = 0
    rollbacks: int = 0


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
        self._told = -math.inf  # when the log had its last line of a step
        with ExitStack() as closing:
            if world.is_main:
                folder.mkdir(parents=True, exist_ok=True)
                closing.callback(hold(folder).release)
            self.pool = PesqPool(config.run.pesq_workers or world.spare_cores())
            closing.callback(self.pool.close)
            self.labels = config.run.metric_labels
            if self.labels == "auto":
                self.labels = "torch" if self.precision.device.type == "cuda" else "pesq"
            labeller = self.pool.label if self.labels == "pesq" else label_on_device
            self.learner = Learner(network, config, self.precision, world, labeller)
            self.validator = Validator(valid, self.pool, self.precision.device, world)
            self.checkpoints = Checkpoints(folder, network, config, data, len(self.sampler))
            if fresh and world.is_main:
                clear(folder)
            logged = self._resume()
            self.runlog = RunLog(folder, self.step, logged) if world.is_main else None
            if self.runlog:
                closing.callback(self.runlog.close)
            self.close = closing.pop_all().close  # ends processes and log, and unlocks the folder

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
            FailedError: loss or gradients are not finite, again and again; a batch does not fit
                into memory; or a checkpoint cannot be written, where those before are untouched.
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
        """Take one step on this process' part of a batch, {"name", "clean", "noisy"}.

        Raises FailedError if it does not fit into the device's memory.
        """
        rate = self.rate_factor * self.schedule.factor(self.step)
        try:
            return self.learner.step(batch, self.step, rate, self.step >= self.schedule.metric_from)
        except torch.OutOfMemoryError:
            pass  # what the step holds is let go before it is tried what fits
        size, seconds = len(batch["clean"]), self.config.data.crop_seconds
        advice = "use a larger --accumulate, or a smaller --batch-size or --crop."
        # In several processes, the others are not here to try.
        if self.world.size == 1 and (fits := self.learner.largest_part(batch)):
            advice = f"{fits} at a time do; use --batch-size {fits}"
            if not self.config.loss.metric:  # a discriminator takes the whole batch
                advice += f", or --accumulate {-(-size // fits)}, which computes the same"
        batch_of = f"a batch of {size} x {seconds:g} s"
        raise FailedError(
            f"{batch_of} does not fit into the memory of {self.precision.device}: {advice}"
        )

    def describe(self) -> None:
        """Log what is going to be trained, and write it to `config.json`."""
        if self.runlog:
            facts = {"amp": self.precision.amp, "processes": self.world.size}
            if self.config.loss.metric:
                facts["metric_labels"] = self.labels
            facts["first_step"] = self.step
            self.runlog.describe(self.learner.model, self.config, facts)
            log.info(
                f"{self.folder}: {len(self.sampler)} steps an epoch, {self.schedule.total:,} steps "
                f"in all, at step {self.step:,}"
            )

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
        # Results are read late: the host need not wait for a GPU in every step.
        late = self.precision.device.type == "cuda" or self.config.run.compile == "graph"
        unread: list[tuple[int, list[str], Result]] = []
        for batch in bar:
            result = self.train_step(batch)
            self.step += 1
            unread.append((self.step, batch["name"], result))
            due = time.monotonic() - saved > 60 * self.config.run.save_minutes
            stop, save = self.world.all_reduce_any(stopped(), due and self.world.is_main)
            ends = self.validated < self.due or self.step == self.schedule.fall_from
            if stop or save or ends or not late or self._is_logged(self.step):
                if not self._follow(epoch, unread, bar):
                    return True
                unread.clear()
            if stop:
                return False
            if ends:
                return True
            if save:
                self._save()
                saved = time.monotonic()
        return True

    def _is_logged(self, step: int) -> bool:
        """Return whether it is a step's turn to be logged."""
        ends = step in (1, self.schedule.total) or step % len(self.sampler) == 0
        return ends or step % self.config.run.log_every == 0

    def _follow(
        self, epoch: int, results: list[tuple[int, list[str], Result]], bar: "tqdm[Any]"
    ) -> bool:
        """Log steps, with their files, and count those that were skipped; False if rolled back."""
        for step, names, result in results:
            if not result.broken:
                self.health.in_a_row = 0
                shown = {name: result.values[name] for name in ("loss", "grad_norm")}
                bar.set_postfix(shown, refresh=False)
                if self.runlog and self._is_logged(step):
                    self._log_step(epoch, step, result, self.runlog, tell=bar.disable)
                continue
            self.health.skipped += 1
            self.health.in_a_row += 1
            everywhere = [name for part in self.world.all_gather(names) for name in part]
            if self.runlog:
                values = ", ".join(f"{name} {value}" for name, value in result.broken.items())
                log.warning(f"skipped step {step}: {values} in a batch of {', '.join(everywhere)}")
                skipped = {**result.broken, "in_a_row": self.health.in_a_row}
                self.runlog.record(step, epoch, skipped=skipped, names=everywhere)
            if self.health.in_a_row >= self.config.optim.skips_in_a_row:
                self._roll_back(step)  # the weights are to blame
                return False
        return True

    def _log_step(self, epoch: int, step: int, result: Result, runlog: RunLog, tell: bool) -> None:
        """Log a step that was taken; with `tell`, also print it now and then."""
        rate = self.rate_factor * self.schedule.factor(step - 1)
        values = {**result.values, "learning_rate": rate * self.config.optim.learning_rate}
        if self.health.skipped:
            values["skipped"] = self.health.skipped
        (before, then), self._since = self._since, (step, time.monotonic())
        crops = self.config.data.batch_size * (step - before)
        speed = {"crops_per_second": crops / max(self._since[1] - then, 1e-9)}
        if self.precision.device.type == "cuda":
            speed["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        runlog.record(step, epoch, train=values, speed=speed)
        if tell and self._since[1] - self._told >= _QUIET:
            self._told = self._since[1]
            log.info(
                f"step {step:,} of {self.schedule.total:,}: loss {values['loss']:.4f}, "
                f"{speed['crops_per_second']:.1f} crops a second"
            )

    def _roll_back(self, step: int) -> None:
        """Go back to the last good state, with a smaller learning rate."""
        health = self.health
        if health.rollbacks >= self.config.optim.rollbacks:
            raise FailedError(
                f"{health.skipped} steps were skipped for a loss or gradient that is not finite, "
                f"the last {health.in_a_row} in a row; the run went back {health.rollbacks} times, "
                "each time to a smaller learning rate. metrics.jsonl names the files of each "
                "skipped step. If the same files come back, look at them. If not, training "
                "diverges: try a smaller --optim.learning-rate or --optim.clip-ratio, or --amp "
                "bf16 or off."
            )
        self._resume(good=True)
        self.health = Health(health.skipped, 0, health.rollbacks + 1)
        if self.runlog:
            log.warning(
                f"{health.in_a_row} steps in a row were skipped: back to step {self.step}, with "
                f"{self.rate_factor:g} times the learning rate"
            )
            rollback = {"from": step, "rate_factor": self.rate_factor}
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
        self.best = max(self.best, scores["pesq_wb"])  # which is NaN where nothing had a score
        if self.runlog:
            epoch = self.step // len(self.sampler)
            self.runlog.validation(self.step, epoch, scores, samples, better)
        if better:
            self._save(best=True)
        self._save_good()
        return True

    def _save(self, best: bool = False) -> None:
        """Write a checkpoint, unless this very state has been saved; all processes must call it."""
        now = (self.step, self.validated)
        if not best and now == self._saved:
            return
        parts = self.learner.parts()
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        if self.runlog:
            state["health"] = vars(self.health)
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
        found = self.world.all_gather(found)[0]
        if found is None:
            return 0
        path, state = found
        with understood(path):
            for name, part in self.learner.parts().items():
                part.load_state_dict(state[name])
            if not good:
                self.health = Health(**state["health"])
            values = state["values"]
            self.step, self.validated = int(values["step"]), int(values["validated"])
            self.best, logged = max(self.best, float(values["best"])), int(values["logged"])
        self._saved = (self.step, self.validated)
        return logged
