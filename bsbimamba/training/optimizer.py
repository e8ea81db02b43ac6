"""What turns gradients into weights: schedule, clipping, Muon and AdamW, averaged weights.

All of it works on flat parameters (`training.flat`), reads nothing on the host, and takes a flag
on the device by which a step is left out: with it, nothing changes, to the bit.

`torch.optim.lr_scheduler` and `torch.optim.swa_utils` are not used. A scheduler keeps a state of
its own, while here the rate follows from the step alone, so that a resumed or rolled back run needs
none. `AveragedModel` reads its counter on the host in every step, and its first update copies.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from bsbimamba.training.config import Config, Optim
from bsbimamba.training.flat import Flat
from bsbimamba.training.muon import muon_update, split
from bsbimamba.training.precision import Scaler

_REMEMBERED, _LEAST = 128, 32  # steps
_MOMENTUM = 0.95  # of Muon


class Schedule:
    """What depends on how far a run has come, as functions of the step alone, counted from 0.

    epoch: steps of an epoch.

    Attributes:
        total: steps of the whole run.
        fall_from: the step from which the learning rate falls; `total` without a fall.
        metric_from: the step from which the metric term is used.
        settled: the step up to which a run would be the same, were it longer.
    """

    def __init__(self, config: Config, epoch: int) -> None:
        self._optim, self._epoch = config.optim, epoch
        self.total = config.optim.steps or config.optim.epochs * epoch
        self.fall_from = self.total - round(config.optim.fall * self.total)
        self.metric_from = round(config.loss.metric_from * self.total)
        uses_metric = config.loss.metric and self.metric_from
        self.settled = min(self.fall_from, self.metric_from) if uses_metric else self.fall_from

    def factor(self, step: int) -> float:
        """Return what the learning rates are multiplied by in a step."""
        optim = self._optim
        factor = optim.decay ** (step // self._epoch // optim.decay_every)
        if step < optim.warmup_steps:
            factor *= (step + 1) / optim.warmup_steps
        if step >= self.fall_from:
            factor *= max(0, self.total - step) / (self.total - self.fall_from)
        return factor


class Optimizer:
    """Muon for the matrices that are its, and AdamW for the rest, after clipping.

    Gradients are clipped whose norm is above `clip_ratio` times the median of the last 128 norms,
    once 32 are known. Source: AutoClip (Seetharaman et al., MLSP 2020), which clips to a percentile
    of all norms so far. The median of recent ones follows the norm's trend, and the ratio lets
    ordinary steps pass.

    Muon's step is the update of its Nesterov momentum (`muon.muon_update`). Weight decay is
    decoupled in both.

    Attributes:
        norm: of the gradient in the last step, before clipping.
        norms: the last 128 of steps that were taken, the newest at the end, NaN before the first.
        scaler: of the loss, for fp16.
    """

    def __init__(self, flat: Flat, optim: Optim, rate: float, scaler: Scaler) -> None:
        self._flat, self._optim, self._rate, self.scaler = flat, optim, rate, scaler
        device, weights = flat.tensor.device, flat.tensor.detach()
        self.norms = torch.full((_REMEMBERED,), math.nan, device=device)  # NaN: not known yet
        self._momentum = torch.zeros_like(weights[: flat.muon])
        self._mean, self._square = (torch.zeros_like(weights[flat.muon :]) for _ in range(2))
        self._steps = torch.zeros((), device=device)
        self._zero, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self.norm = self._zero

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss."""
        (loss * self.scaler.factor if self.scaler.enabled else loss).backward()

    def clip(self) -> Tensor:
        """Scale the gradient in place, and return its norm before that, a scalar."""
        gradient = self._flat.tensor.grad
        assert gradient is not None
        if self.scaler.enabled:
            gradient.div_(self.scaler.factor)
        self.norm = torch.linalg.vector_norm(gradient)
        limit = self._optim.clip_ratio / self.norm * self.norms.nanmedian(dim=0).values
        # Norms are added at the end: whether so many are known, the one so far from there says.
        gradient.mul_(torch.where(self.norms[-_LEAST] > 0, limit.clamp_max(1.0), self._one))
        return self.norm

    def sound(self, loss: Tensor) -> Tensor:
        """Return whether the loss, at least 0, and the gradient are finite.

        The gradient may also be infinite where a smaller scale of the loss may help.
        """
        if not self.scaler.enabled:
            return loss + self.norm < math.inf
        return (loss < math.inf) & ((self.norm < math.inf) | (self.scaler.factor > 1))

    @torch.no_grad()
    def step(self, factor: Tensor, go: Tensor) -> Tensor:
        """Take one step, and forget the gradient.

        factor: of the learning rate. go: False to change nothing, whatever the gradient is.

        Returns 1 where the step was taken, 0 where not: the gradient may have overflowed.
        """
        flat, optim = self._flat, self._optim
        gradient, flat.tensor.grad = flat.tensor.grad, None
        assert gradient is not None
        if self.scaler.enabled:
            finite = self.norm < math.inf
            self.scaler.update(go, ~finite)
            go = go & finite
        taken = go.float()
        gradient = torch.where(go, gradient, self._zero)
        rate = self._rate * factor * taken
        weights = flat.tensor.detach()
        decayed = weights[: flat.decayed]
        decayed.addcmul_(decayed, rate, value=-optim.weight_decay)
        if flat.muon:
            ahead = gradient[: flat.muon]
            self._momentum.lerp_(ahead, (1 - _MOMENTUM) * taken)
            updates = muon_update(torch.lerp(ahead, self._momentum, _MOMENTUM), flat.stacks)
            torch._foreach_mul_(updates, rate)
            torch._foreach_sub_(split(weights[: flat.muon], flat.stacks), updates)
        # The operator of `torch.optim.AdamW(fused=True)`, whose class reads on the host.
        self._steps += taken
        torch._fused_adamw_(
            [weights[flat.muon :]],
            [gradient[flat.muon :]],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            lr=rate,
            beta1=optim.beta1,
            beta2=optim.beta2,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
            found_inf=1 - taken,
        )
        # 0 is the norm of a batch of silence, which says nothing of others.
        usual = go & (self.norm > 0)
        longer = torch.cat([self.norms[1:], self.norm[None]])
        torch.where(usual, longer, self.norms, out=self.norms)
        return taken

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "norms": self.norms,
            "momentum": self._momentum,
            "mean": self._mean,
            "square": self._square,
            "steps": self._steps,
            **self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mine in self.state_dict().items():
            if name in state or name not in self.scaler.state_dict():  # a run in fp16 or not
                mine.copy_(state[name])


class EMA:
    """Exponential moving average of weights: average += (1 - decay) (weights - average).

    In the first steps the decay is (1 + n) / (10 + n) = 1 - 9 / (10 + n), if that is smaller, so
    that the random start is forgotten at once.
    """

    def __init__(self, network: nn.Module, flat: Flat, decay: float) -> None:
        self.model: Any = copy.deepcopy(network).eval().requires_grad_(False)
        self._average, self._decay = flat.tensor.detach().clone(), decay
        flat.place(self.model, self._average)
        self._updates = torch.zeros((), device=self._average.device)

    @torch.no_grad()
    def update(self, flat: Flat, taken: Tensor) -> None:
        """Move the average towards the present weights. taken: as in `Optimizer.step`."""
        share = (9 / (10 + self._updates)).clamp_min(1 - self._decay)
        self._updates += taken
        self._average.lerp_(flat.tensor, share * taken)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._updates.fill_(state["updates"])
