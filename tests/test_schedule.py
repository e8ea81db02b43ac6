"""The schedule of a run: its length, its rate, and up to where a longer run would be the same."""

from __future__ import annotations

import pytest

from training.config import Config, Loss, Optim
from training.optimizer import Schedule

EPOCH = 8


def schedule(loss: Loss | None = None, **optim: float) -> Schedule:
    return Schedule(Config(loss=loss or Loss(), optim=Optim(**optim)), EPOCH)  # type: ignore[arg-type]


def test_length_is_that_in_steps_or_else_in_epochs() -> None:
    assert schedule(epochs=3).total == 3 * EPOCH
    assert schedule(epochs=3, steps=20).total == 20


def test_rate_rises_stays_and_falls_to_zero() -> None:
    made = schedule(steps=20, warmup_steps=4, fall=0.4)
    assert made.fall_from == 12
    assert [made.factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert [made.factor(step) for step in range(4, 12)] == [1] * 8
    falling = [made.factor(step) for step in range(12, 22)]
    assert falling == pytest.approx([(20 - step) / 8 for step in range(12, 20)] + [0, 0])


def test_decay_is_by_completed_epochs() -> None:
    made = schedule(steps=50, warmup_steps=0, fall=0.0, decay=0.5, decay_every=2)
    assert [made.factor(EPOCH * epoch) for epoch in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert made.factor(2 * EPOCH - 1) == 1


def test_defaults_are_constant_but_for_100_steps_and_the_last_fifth() -> None:
    made = schedule(steps=8000)
    assert made.fall_from == 6400
    assert [made.factor(step) for step in (0, 99, 6400, 7999)] == [0.01, 1, 1, 1 / 1600]


@pytest.mark.parametrize(
    ("loss", "fall", "settled"),
    [
        (Loss(), 0.2, 80),
        (Loss(), 0.0, 100),
        (Loss(metric=0.05, metric_from=0.5), 0.2, 50),
        (Loss(metric=0.05, metric_from=0.9), 0.2, 80),
        (Loss(metric=0.0, metric_from=0.5), 0.2, 80),  # there is no metric term
    ],
)
def test_runs_are_settled_up_to_the_first_step_that_depends_on_their_length(
    loss: Loss, fall: float, settled: int
) -> None:
    short, long = (schedule(loss, steps=steps, fall=fall) for steps in (100, 400))
    assert short.settled == settled
    assert short.metric_from == round(100 * loss.metric_from)
    for step in range(settled):
        assert short.factor(step) == long.factor(step)
        if loss.metric:
            assert (step >= short.metric_from) == (step >= long.metric_from)
