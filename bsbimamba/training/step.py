"""One training step of generator and discriminator."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config, Loss
from bsbimamba.training.discriminator import MetricDiscriminator
from bsbimamba.training.distributed import World
from bsbimamba.training.flat import Flat
from bsbimamba.training.graph import Replayed
from bsbimamba.training.losses import Active, losses
from bsbimamba.training.optimizer import EMA, Optimizer
from bsbimamba.training.pesq import Labeller
from bsbimamba.training.precision import Precision


class Result:
    """What one step gave, over the batch of all processes. It is read when it is first asked for.

    Attributes:
        values: loss, terms and gradient norms.
        broken: those that are not finite and should be, where the step was skipped.
    """

    def __init__(self, values: dict[str, Tensor]) -> None:
        self._names, self._numbers = list(values), torch.stack(list(values.values()))

    @cached_property
    def values(self) -> dict[str, float]:
        numbers = dict(zip(self._names, self._numbers.tolist(), strict=True))
        self._taken = bool(numbers.pop("go"))
        return numbers

    @property
    def broken(self) -> dict[str, float]:
        values = self.values
        if self._taken:
            return {}
        return {k: v for k, v in values.items() if not math.isfinite(v) and k != "pesq"}


class Learner:
    """A network, its averaged weights, its optimizer and its discriminator.

    Each process of `world` has its part of every batch. `labeller` is the discriminator's.

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
        labeller: Labeller,
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        torch.manual_seed(config.seed)
        self.model = network(**config.model).to(precision.device)
        optim = config.optim
        self.flat = Flat(self.model, optim.algorithm == "muon")
        self.ema = EMA(self.model, self.flat, optim.ema_decay)
        self._parallel = world.parallel(self.flat)
        scaler = precision.make_scaler()
        self.optimizer = Optimizer(self.flat, optim, optim.learning_rate, scaler)
        self.discriminator = MetricDiscriminator(world, config, precision, labeller)
        cuda = precision.device.type == "cuda"
        self._copying = torch.cuda.Stream(precision.device) if cuda else None
        graph = config.run.compile == "graph" or (config.run.compile == "auto" and cuda)
        self._computed = Replayed(self._compute) if graph and world.size == 1 else self._compute
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
        factor = torch.full((), rate, device=self.precision.device)
        examples = self.discriminator.take() if self.config.loss.metric else ()
        self.mark("labels")
        values, waveforms = self._computed(self._both(batch), factor, use_metric, *examples)
        result = Result(values)
        if self.config.loss.metric:
            self.discriminator.remember(waveforms, values["go"])
        self.mark("labels")
        return result

    def _both(self, batch: dict[str, Any]) -> Tensor:
        """Return clean and noisy waveforms, (2, b, s), on the device.

        They are copied to a GPU beside the step before, which still computes.
        """
        sides = [batch["clean"], batch["noisy"]]
        if self._copying is None:
            return torch.stack(sides)
        present = torch.cuda.current_stream()
        with torch.cuda.stream(self._copying):
            sides = [x.to(self.precision.device, non_blocking=True) for x in sides]
        present.wait_stream(self._copying)
        both = torch.stack(sides)
        self._copying.wait_stream(present)  # before the memory of these copies is used again
        return both

    def _compute(
        self, both: Tensor, factor: Tensor, use_metric: bool, *examples: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the step on the device, from what `step` and the discriminator's `take` say.

        Returns what to log, with the flag `go`: whether the step was taken; and the waveforms
        clean, enhanced and noisy (3, b, s), for a discriminator.
        """
        # What a step that failed has left, for lack of memory or because it could not be captured.
        self.flat.tensor.grad = self.discriminator.flat.tensor.grad = None
        active = Active.of(both)
        # How loud a crop is must not decide how much it counts.
        clean, noisy = both / active.loudness(both[1])
        how = self.config.loss
        self.mark("data")

        self.model.train()
        values, enhanced = self._backward(
            clean, noisy, active, how if use_metric else replace(how, metric=0.0)
        )
        values["grad_norm"] = self.optimizer.clip()
        self.mark("backward")
        go = self.optimizer.sound(values["loss"])  # of which a term that is not finite makes one
        if examples:
            values |= self.discriminator.backward(*examples)
            go = go & self.discriminator.optimizer.sound(values["discriminator"])
            self.mark("discriminator")
            self.discriminator.optimizer.step(factor, go & (values["labelled"] > 0))
        self.ema.update(self.flat, self.optimizer.step(factor, go))
        self.mark("optimizer")
        waveforms = torch.stack([clean, enhanced, noisy]) if how.metric else enhanced
        return {**values, "go": go.float()}, waveforms

    def losses(
        self, clean: Tensor, noisy: Tensor, how: Loss, active: Active | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Run the forward pass on waveforms (b, s).

        active: which parts of them count; by default those that are not silent.

        Returns:
            The loss, with gradients, its terms, and the enhanced waveforms (b, s), without.
        """
        with self.precision.autocast():
            waveform, spectrum = self._parallel(noisy)
        reanalysed, target = stft(waveform), stft(clean)
        active = active or Active.of(torch.stack([clean, noisy]))
        loss, terms = losses(waveform, spectrum, reanalysed, clean, target, active, how)
        if how.metric:
            magnitudes = (compressed_magnitude(x) for x in (reanalysed, target))
            share = len(clean) / active.crops
            terms["metric"] = share * self.discriminator.term(*magnitudes)
            loss = loss + how.metric * terms["metric"]
        return loss, terms, waveform.detach()

    def largest_part(self, batch: dict[str, Any]) -> int:
        """Return how many items of a batch that does not fit into memory do, to a factor of two.

        The generator's passes are tried. Gradients are lost.
        """
        size = len(batch["clean"]) // 2
        while size:
            clean, noisy = (batch[x][:size].to(self.precision.device) for x in ("clean", "noisy"))
            try:
                self.losses(clean, noisy, self.config.loss)[0].backward()
                return size
            except torch.OutOfMemoryError:
                size //= 2
        return 0

    def parts(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold to go on, by name."""
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "discriminator": self.discriminator,
        }

    def _backward(
        self, clean: Tensor, noisy: Tensor, active: Active, how: Loss
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the gradients of the loss over the items of all processes.

        Returns the loss and its terms over the same, and this process' enhanced waveforms (b, s).
        """
        sums: list[Tensor] = []
        waveforms = []
        pieces = min(self.config.run.accumulate, len(noisy))
        sides = (clean.tensor_split(pieces), noisy.tensor_split(pieces), active.split(pieces))
        for piece, (c, n, part) in enumerate(zip(*sides, strict=True), start=1):
            # Gradients are exchanged with the last piece; until then each process adds up its own.
            alone = piece < pieces and self._parallel is not self.flat
            with self._parallel.no_sync() if alone else nullcontext():  # type: ignore[operator]
                loss, terms, waveform = self.losses(c, n, how, part)
                self.mark("forward")
                self.optimizer.backward(loss)
            self.mark("backward")
            sums.append(torch.stack([loss.detach(), *terms.values()]))
            waveforms.append(waveform)
        means = self.world.all_reduce_mean(reduce(torch.add, sums))
        whole = torch.cat(waveforms) if pieces > 1 else waveform
        return dict(zip(("loss", *terms), means, strict=True)), whole
