"""What turns gradients into weights: optimizer, schedule of its rate, clipping, averaging.

`torch.optim.lr_scheduler` and `torch.optim.swa_utils` are not used. A scheduler keeps a state of
its own, while here the rate follows from the step alone, so that a resumed or rolled back run needs
none. `AveragedModel` reads its counter on the host in every step, and its first update copies.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bsbimamba.training.config import Config, Optim
from bsbimamba.training.muon import Muon, matrices

_REMEMBERED, _LEAST = 128, 32  # steps


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimizer that the configuration names, for all parameters of a module.

    "adamw" is AdamW. "muon" is Muon for the parameters marked `matrices`, and AdamW for all others.
    Parameters marked `no_weight_decay` (Mamba's A_log and D) are not decayed.
    """
    use_muon = optim.algorithm == "muon"
    decayed: dict[str, Any] = {"params": []}
    others: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    of_muon: dict[str, Any] = {"params": [], "use_muon": True}
    for p in module.parameters():
        by_adamw = others if getattr(p, "no_weight_decay", False) else decayed
        (of_muon if use_muon and matrices(p) else by_adamw)["params"].append(p)
    groups = [group for group in (decayed, others, of_muon) if group["params"]]
    settings = (optim.learning_rate, (optim.beta1, optim.beta2))
    if use_muon:
        return Muon(groups, *settings, weight_decay=optim.weight_decay)
    # Fused: one launch for all parameters, instead of a dozen for each.
    return torch.optim.AdamW(groups, *settings, weight_decay=optim.weight_decay, fused=True)


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


class GradientClip:
    """Clip gradients whose norm is above `ratio` times the median of the last 128 norms.

    The history holds norms before clipping. With fewer than 32 of them, nothing is clipped. Nothing
    is read on the host.

    Source: AutoClip (Seetharaman et al., MLSP 2020), which clips to a percentile of all norms so
    far. The median of recent ones follows the norm's trend, and the ratio lets ordinary steps pass.
    An infinite ratio never clips.
    """

    def __init__(self, ratio: float, device: torch.device) -> None:
        self.ratio = ratio
        self.norms = torch.full((_REMEMBERED,), math.nan, device=device)  # NaN: not known yet
        self._norm = self.norms[0].clone()

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Scale the gradients in place, and return their norm before that, a scalar."""
        parameters = [p for p in parameters if p.grad is not None]
        self._norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        known = self.norms.isfinite().sum() >= _LEAST
        limit = torch.where(known, self.ratio * self.norms.nanmedian(dim=0).values, math.inf)
        # The limit itself as `max_norm` would be read on the host.
        nn.utils.clip_grads_with_norm_(parameters, 1.0, self._norm / limit)
        return self._norm

    def accept(self) -> None:
        """Add the norm of the last call to the history, once its step is taken.

        Leave out 0 (nothing was labelled) and what is not finite (a loss scaler skips the step).
        """
        usual = self._norm.isfinite() & (self._norm > 0)
        longer = torch.cat([self.norms[1:], self._norm[None]])
        self.norms.copy_(torch.where(usual, longer, self.norms))

    def state_dict(self) -> dict[str, Tensor]:
        return {"norms": self.norms}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.norms.copy_(state["norms"])


class EMA:
    """Exponential moving average of weights: average += (1 - decay) (weights - average).

    In the first steps the decay is (1 + n) / (10 + n), if that is smaller, so that the random
    start is forgotten at once.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        average: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(average, list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
