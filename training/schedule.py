"""When a run warms up, begins to use the metric term, lets its learning rate fall, and ends."""

from __future__ import annotations

from training.config import Config


class Schedule:
    """What depends on how far a run has come, as functions of the step alone, counted from 0.

    Args:
        config: of the run.
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
