"""Clipping of gradients by the history of their norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_REMEMBERED, _LEAST = 128, 32  # steps


class GradientClip:
    """Clip gradients whose norm is above `ratio` times the median of the last 128 norms.

    The history holds norms before clipping. With fewer than 32 of them, nothing is clipped. Nothing
    is read on the host.

    Source: AutoClip (Seetharaman et al., MLSP 2020), which clips to a percentile of all norms so
    far. The median of recent ones follows the norm's trend, and the ratio lets ordinary steps pass.

    Args:
        ratio: above 0; infinity never clips.
        device: of the gradients.
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

        A norm that is 0 (nothing was labelled) or not finite (a loss scaler skips the step) is left
        out.
        """
        usual = self._norm.isfinite() & (self._norm > 0)
        longer = torch.cat([self.norms[1:], self._norm[None]])
        self.norms.copy_(torch.where(usual, longer, self.norms))

    def state_dict(self) -> dict[str, Tensor]:
        return {"norms": self.norms}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.norms.copy_(state["norms"])
