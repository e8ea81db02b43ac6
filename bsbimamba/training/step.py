"""One training step of generator and discriminator."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config, Loss
from bsbimamba.training.discriminator import MetricDiscriminator
from bsbimamba.training.distributed import World
from bsbimamba.training.losses import Active, Recordings, loss_terms
from bsbimamba.training.optimizer import EMA, GradientClip, make_optimizer
from bsbimamba.training.pesq import PesqPool
from bsbimamba.training.precision import Precision


class Stateful(Protocol):
    """Anything with torch's two methods for its state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Result:
    """What one step gave, over the batch of all processes."""

    values: dict[str, float]  # loss, terms and gradient norms
    broken: dict[str, float]  # those that are not finite and should be: the step was skipped


class Learner:
    """A network, its averaged weights, its optimizer and its discriminator.

    Each process of `world` has its part of every batch. `pool` labels the discriminator's examples.

    Attributes:
        mark: called with the name of each phase of a step as it ends: data, forward, backward,
            discriminator, labels (the wait for old ones, the request for new ones), optimizer.
    """

    def __init__(
        self,
        network: type[BandSplitNet],
        config: Config,
        precision: Precision,
        world: World,
        pool: PesqPool,
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        torch.manual_seed(config.seed)
        self.model = network(**config.model).to(precision.device)
        self.ema = EMA(self.model, config.optim.ema_decay)
        self._parallel = world.parallel(self.model)
        self._shard = config.data.batch_size // world.size
        self.optimizer = make_optimizer(self.model, config.optim)
        self.scaler = precision.make_scaler()
        self.clip = GradientClip(config.optim.clip_ratio, precision.device)
        self.discriminator = MetricDiscriminator(world, config, precision, pool)
        self.mark: Callable[[str], object] = lambda phase: None

    def step(
        self, batch: dict[str, Any], number: int, rate: float = 1.0, use_metric: bool = True
    ) -> Result:
        """Take one optimizer step of both networks on this process' {"clean", "noisy"} (b, s).

        If a loss or a gradient is not finite, neither network takes it, and nothing of the batch
        is remembered.

        Args:
            number: of the step, from 0. Whatever is random in it follows from this, the seed and
                the rank alone.
            rate: what both learning rates are multiplied by.
            use_metric: whether the generator is judged by the discriminator, which learns in any
                case where `loss.metric` is not 0.
        """
        random = np.random.SeedSequence([self.config.seed, number, self.world.rank])
        torch.manual_seed(int(random.generate_state(1, np.uint64)[0]))
        self.model.train()
        device = self.precision.device
        clean, noisy = (batch[k].to(device, non_blocking=True) for k in ("clean", "noisy"))
        active = Active.of(clean, noisy)
        scale = active.loudness(noisy)  # how loud a crop is must not decide how much it counts
        clean, noisy = clean / scale, noisy / scale
        how = self.config.loss
        judged = bool(how.metric)
        self.mark("data")

        self.optimizer.zero_grad(set_to_none=True)
        present = how if use_metric else replace(how, metric=0.0)
        terms, enhanced = self._backward(clean, noisy, active, present)
        self.scaler.unscale_(self.optimizer)
        norm = self.clip(self.model.parameters())
        self.mark("backward")
        learnt = self.discriminator.backward(self.mark) if judged else {}
        self.mark("discriminator")

        tensors = {**terms, "grad_norm": norm, **learnt}
        numbers = torch.stack([value.float() for value in tensors.values()]).tolist()
        values = dict(zip(tensors, numbers, strict=True))
        broken = {k: values[k] for k in self._watched(values) if not math.isfinite(values[k])}
        if broken:
            self.scaler.forget_unscaled()
            self.discriminator.skip()
            return Result(values, broken)

        self._set_learning_rates(rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.clip.accept()
        self.ema.update(self.model)
        if judged:
            self.discriminator.step()
        self.mark("optimizer")
        if judged:
            self.discriminator.remember(enhanced, clean, noisy)
        self.mark("labels")
        return Result(values, {})

    def losses(
        self, clean: Tensor, noisy: Tensor, how: Loss, active: Active | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Run the forward pass on waveforms (b, s).

        active: which parts of them count; by default those that are not silent.

        Returns:
            The loss, with gradients, its terms, and the enhanced waveforms (b, s), without.
        """
        with self.precision.autocast():
            enhanced = Recordings(*self._parallel(noisy))
        target = Recordings(clean, stft(clean))
        terms = loss_terms(enhanced, target, active or Active.of(clean, noisy), how)
        if how.metric:
            terms["metric"] = self.discriminator.term(
                compressed_magnitude(enhanced.reanalysed), target.magnitude
            )
        loss = torch.stack([getattr(how, name) * term for name, term in terms.items()]).sum()
        return loss, terms, enhanced.waveform.detach()

    def parts(self) -> dict[str, Stateful]:
        """Return all that a checkpoint must hold to go on, by name."""
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "clip": self.clip,
            "scaler": self.scaler,
            "discriminator": self.discriminator,
        }

    def _backward(
        self, clean: Tensor, noisy: Tensor, active: Active, how: Loss
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the gradients of the loss over the items of all processes.

        Returns the loss and its terms over the same, and this process' enhanced waveforms (b, s).
        """
        sums: dict[str, Tensor] = {}
        waveforms = []
        pieces = min(self.config.run.accumulate, len(noisy))
        sides = zip(
            *(x.tensor_split(pieces) for x in (clean, noisy, active.frames, active.samples)),
            strict=True,
        )
        for piece, (c, n, *parts) in enumerate(sides, start=1):
            # Gradients are exchanged with the last piece; until then each process adds up its own.
            alone = piece < pieces and self._parallel is not self.model
            with self._parallel.no_sync() if alone else nullcontext():  # type: ignore[operator]
                loss, terms, waveform = self.losses(c, n, how, Active(*parts))
                self.mark("forward")
                # Every term is a mean over items, so that items count alike, however spread.
                part = len(n) / self._shard
                self.scaler.scale(part * loss).backward()
            self.mark("backward")
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + part * value.detach()
            waveforms.append(waveform)
        means = self.world.all_reduce_sum(torch.stack(list(sums.values()))) / self.world.size
        return dict(zip(sums, means, strict=True)), torch.cat(waveforms)

    def _watched(self, values: dict[str, float]) -> list[str]:
        """Return the names of the values that must be finite.

        With a scaler, an infinite gradient is a step that the scaler leaves out, to go on at half
        its scale. Only where that has come down to 1 is the gradient itself to blame.
        """
        exempt = {
            "pesq": True,  # NaN where no item has a label
            "grad_norm": self.scaler.may_overflow(),
            "discriminator_grad_norm": self.discriminator.scaler.may_overflow(),
        }
        return [name for name in values if not exempt.get(name)]

    def _set_learning_rates(self, factor: float) -> None:
        optim = self.config.optim
        for group in self.optimizer.param_groups:
            group["lr"] = factor * optim.learning_rate
        for group in self.discriminator.optimizer.param_groups:
            group["lr"] = factor * optim.discriminator_rate
