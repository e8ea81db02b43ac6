"""The one training loop."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bandsplit.net import BandSplitNet, loudness
from bandsplit.stft import stft
from data.dataset import EpochSampler, SpeechDataset, make_loader
from data.workers import usable_cores
from training import checkpoint
from training.adversary import Adversary
from training.config import Config, ConfigError
from training.ema import EMA
from training.interrupt import stop_on_signal
from training.losses import Recordings, loss_terms
from training.optimizer import learning_rate, make_optimizer
from training.pesq_pool import PesqPool
from training.precision import Precision
from training.runlog import RunLog, clear
from training.validation import validate

log = logging.getLogger("training")


class TrainingError(Exception):
    """Training cannot go on; the text says why."""


class Trainer:
    """Trains one network on one data set into one run folder.

    Args:
        network: a class of networks; built from `config.model`.
        config: of the run.
        train, valid: datasets of `data.dataset`; the second gives whole utterances.
        folder: the run folder. A checkpoint in it is continued.
        fresh: clear the folder instead, once nothing else can be refused.

    Raises:
        ConfigError: the data do not fill one batch, or the device is not there, or `fresh` would
            clear a folder of something else.
        CheckpointError: the folder's checkpoint is of another network or configuration.
    """

    def __init__(
        self,
        network: type[BandSplitNet],
        config: Config,
        train: SpeechDataset,
        valid: SpeechDataset,
        folder: Path,
        fresh: bool = False,
    ) -> None:
        self.network, self.config, self.folder = network, config, folder
        self.train_set, self.valid_set = train, valid
        self.precision = Precision(config.run.device, config.run.amp)
        self.device = self.precision.device
        self.sampler = EpochSampler(len(train), config.data.batch_size, config.seed)
        if len(self.sampler) == 0:
            raise ConfigError(
                f"{len(train)} training files do not fill one batch of {config.data.batch_size}; "
                "use a smaller --batch-size or more data."
            )
        torch.manual_seed(config.seed)
        self.model = network(**config.model).to(self.device)
        self.ema = EMA(self.model, config.optim.ema_decay)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.scaler = self.precision.make_scaler()
        self.pool = PesqPool(config.run.pesq_workers or max(1, usable_cores() - 1))
        self.adversary = Adversary(
            self.device,
            lambda discriminator: make_optimizer(discriminator, config.optim),
            self.precision.autocast,
            self.precision.make_scaler(),
            self.pool,
            config.optim.clip_norm,
        )
        self.fingerprint = f"{train.fingerprint()}-{valid.fingerprint()}"
        self.step, self.best = 0, -math.inf
        last = folder / checkpoint.LAST
        if fresh:
            clear(folder)
        elif os.path.lexists(last):
            values = checkpoint.restore(last, network, config, self.fingerprint, self._parts())
            self.step, self.best = values["step"], values["best"]
        self.runlog = RunLog(folder, self.step)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // len(self.sampler)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One optimizer step on {"clean", "noisy"} (b, s); returns its loss terms and grad norm."""
        self.model.train()
        clean, noisy = (batch[k].to(self.device, non_blocking=True) for k in ("clean", "noisy"))
        scale = loudness(noisy)  # how loud a recording is must not decide how much it counts
        clean, noisy = clean / scale, noisy / scale
        weights = self._weights()

        with self.precision.autocast():
            enhanced = Recordings(*self.model(noisy))
        target = Recordings(clean, stft(clean))
        terms = loss_terms(enhanced, target, weights)
        if weights["metric"]:
            terms["metric"] = self.adversary.term(enhanced.spectrum, target.spectrum)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()

        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        self._set_learning_rate()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update(self.model)

        learnt: dict[str, Tensor] = {}
        if weights["metric"]:
            learnt = self.adversary.learn()
            self.adversary.remember(enhanced.waveform, clean)
        logged = {"loss": loss, **terms, **learnt, "grad_norm": norm}
        return {name: value.detach() for name, value in logged.items()}

    def fit(self, max_steps: int | None = None) -> None:
        """Train to `config.run.epochs`, or until `max_steps` steps in all, or until interrupted.

        Raises:
            TrainingError: the loss is not finite.
        """
        loader = make_loader(
            self.train_set, self.sampler, self.config.run.workers, self.device.type == "cuda"
        )
        last_step = self.config.run.epochs * len(self.sampler)
        if max_steps is not None:
            last_step = min(last_step, max_steps)
        saved = time.monotonic()
        with stop_on_signal() as stopped:
            while self.step < last_step and not stopped():
                epoch = self.epoch
                self.sampler.epoch, self.sampler.start = epoch, self.step % len(self.sampler)
                progress = tqdm(
                    loader,
                    desc=f"epoch {epoch + 1}/{self.config.run.epochs}",
                    total=len(self.sampler),
                    initial=self.sampler.start,
                )
                for batch in progress:
                    values = self.train_step(batch)
                    self.step += 1
                    ending = self.step >= last_step or stopped()
                    save = time.monotonic() - saved > 60 * self.config.run.save_minutes
                    epoch_ends = self.step % len(self.sampler) == 0
                    log_now = self.step % self.config.run.log_every == 0
                    if ending or save or epoch_ends or log_now:
                        progress.set_postfix(self._log_step(values, batch["name"]))
                    if ending:
                        break
                    if save:
                        self._save(checkpoint.LAST)
                        saved = time.monotonic()
                progress.close()
                if self.step % len(self.sampler) == 0:
                    self._end_epoch()
                    saved = time.monotonic()
            self._save(checkpoint.LAST)  # still within: a signal must not hit the save itself

    def close(self) -> None:
        """End the worker processes and the log."""
        self.pool.close()
        self.runlog.close()

    def _weights(self) -> dict[str, float]:
        """The terms' weights at this step."""
        weights = dict(vars(self.config.loss))
        start = weights.pop("metric_from_epoch")
        return weights if self.epoch >= start else {**weights, "metric": 0.0}

    def _set_learning_rate(self) -> None:
        """The rate of this epoch, for both players: a function of the step alone."""
        rate = learning_rate(self.config.optim, self.epoch)
        for optimizer in (self.optimizer, self.adversary.optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _log_step(self, values: dict[str, Tensor], names: list[str]) -> dict[str, str]:
        """Check and record a step's values; what the progress bar shows of them.

        Every checkpoint is preceded by this, so that none is ever written of a broken state.
        """
        numbers = {name: float(value) for name, value in values.items()}
        # With a scaler an infinite gradient is a step left out, not a step gone wrong.
        watched = {"loss", "discriminator"} | (set() if self.scaler.is_enabled() else {"grad_norm"})
        broken = {k: v for k, v in numbers.items() if k in watched and not math.isfinite(v)}
        if broken:
            listed = ", ".join(f"{name} {value}" for name, value in broken.items())
            raise TrainingError(
                f"step {self.step}: {listed} in a batch of {', '.join(names)}. "
                "What is saved is from before it."
            )
        numbers["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.runlog.record(self.step, self.epoch, "train", numbers)
        return {"loss": f"{numbers['loss']:.3f}", "norm": f"{numbers['grad_norm']:.2f}"}

    def _end_epoch(self) -> None:
        scores, samples = validate(self.ema.model, self.valid_set, self.pool, self.device)
        log.info(
            "epoch %d: PESQ %.3f, STOI %.4f over %d of %d held-out utterances",
            self.epoch,
            scores["pesq_wb"],
            scores["stoi"],
            scores["scored"],
            scores["files"],
        )
        self.runlog.record(self.step, self.epoch, "valid", scores)
        for name, recordings in samples.items():
            self.runlog.sample(name, recordings)
        if scores["pesq_wb"] > self.best:
            self.best = scores["pesq_wb"]
            self._save(checkpoint.BEST)
        self._save(checkpoint.LAST)

    def _parts(self) -> dict[str, checkpoint.Stateful]:
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "adversary": self.adversary,
        }

    def _save(self, name: str) -> None:
        values = {
            "step": self.step,
            "epochs": self.step / len(self.sampler),
            "best": self.best,
            "held_out": self.valid_set.speakers(),
        }
        checkpoint.save(
            self.folder / name,
            self.network,
            self.config,
            self.fingerprint,
            self._parts(),
            values,
        )
