"""What turns gradients into weights: AdamW, the schedule of its rate, clipping."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from bsbimamba.training.config import Config, Loss, Optim
from bsbimamba.training.optimizer import GradientClip, Schedule, make_optimizer
from real_mamba_optimized import SelectiveSSM

EPOCH = 8


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_make_optimizer_steps_unmarked_parameters_as_adamw_does(algorithm: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    other = copy.deepcopy(module)
    optim = Optim(algorithm=algorithm)
    usual = torch.optim.AdamW(
        other.parameters(),
        optim.learning_rate,
        (optim.beta1, optim.beta2),
        weight_decay=optim.weight_decay,
    )
    x = torch.linspace(-1, 1, 16).view(2, 8)
    for one, optimizer in ((module, make_optimizer(module, optim)), (other, usual)):
        for _ in range(3):
            optimizer.zero_grad()
            one(x).square().sum().backward()
            optimizer.step()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_marked_parameters_are_not_decayed() -> None:
    ssm = SelectiveSSM(8)
    decayed, free = make_optimizer(ssm, Optim(algorithm="adamw")).param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert {id(p) for p in free["params"]} == {id(ssm.A_log), id(ssm.D)}


# The schedule


def schedule(loss: Loss | None = None, **optim: float) -> Schedule:
    return Schedule(Config(loss=loss or Loss(), optim=Optim(**optim)), EPOCH)  # type: ignore[arg-type]


def test_length_is_that_in_steps_or_else_in_epochs() -> None:
    assert schedule(epochs=3).total == 3 * EPOCH
    assert schedule(epochs=3, steps=20).total == 20


def test_rate_rises_stays_and_falls_to_zero() -> None:
    made = schedule(steps=20, warmup_steps=4, fall=0.4)
    assert made.fall_from == 12
    falling = [(20 - step) / 8 for step in range(12, 20)]
    expected = [0.25, 0.5, 0.75, 1, *[1] * 8, *falling, 0, 0]
    assert [made.factor(step) for step in range(22)] == pytest.approx(expected)


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
    for step in range(settled):
        assert short.factor(step) == long.factor(step)
        if loss.metric:
            assert (step >= short.metric_from) == (step >= long.metric_from)


# Clipping by the history of the gradient's norm


class Clipped:
    """Two parameters, and what a clip does with gradients of a given norm."""

    def __init__(self, ratio: float = 3.0) -> None:
        self.parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
        self.clip = GradientClip(ratio, torch.device("cpu"))

    def __call__(self, norm: float, accept: bool = True) -> tuple[float, float]:
        """The norm returned, and the norm afterwards."""
        for p in self.parameters:
            p.grad = torch.full_like(p, norm / math.sqrt(7))
        returned = float(self.clip(self.parameters))
        if accept:
            self.clip.accept()
        gradients = [p.grad.flatten() for p in self.parameters if p.grad is not None]
        return returned, float(torch.cat(gradients).norm())


def test_clip_scales_a_burst_to_the_ratio_times_the_median_of_32_norms_or_more() -> None:
    clipped = Clipped()
    for i in range(1, 32):
        assert clipped(0.01 * i)[1] == pytest.approx(0.01 * i)
    assert clipped(21.0) == pytest.approx((21.0, 21.0))  # 31 norms are too few
    for i in range(33, 42):
        clipped(0.01 * i)
    # The median of 0.01 to 0.41, with 21.0 in the place of 0.32.
    assert clipped(21.0) == pytest.approx((21.0, 3 * 0.21))


def test_clip_leaves_ordinary_gradients_as_they_are_to_the_bit() -> None:
    clipped = Clipped()
    for i in range(64):
        value = 0.1 * (1 + (i % 10) / 5)
        clipped(value)
        for p in clipped.parameters:
            assert torch.equal(p.grad, torch.full_like(p, value / math.sqrt(7)))


def test_clip_forgets_norms_older_than_128_steps() -> None:
    clipped = Clipped()
    for _ in range(128):
        clipped(1.0)
    for _ in range(128):
        clipped(10.0)
    assert clipped.clip.norms.unique().numel() == 1
    assert clipped(100.0)[1] == pytest.approx(30.0)


@pytest.mark.parametrize("norm", [math.nan, math.inf, 0.0, 50.0])
def test_clip_remembers_no_norm_of_a_skipped_step_nor_zero(norm: float) -> None:
    clipped = Clipped()
    for _ in range(40):
        clipped(1.0)
    before = clipped.clip.norms.clone()
    assert clipped(norm, accept=norm != 50.0)[0] == pytest.approx(norm, nan_ok=True)
    torch.testing.assert_close(clipped.clip.norms, before, rtol=0, atol=0, equal_nan=True)
    assert clipped(100.0)[1] == pytest.approx(3.0)


def test_clip_with_an_infinite_ratio_never_acts() -> None:
    clipped = Clipped(math.inf)
    for _ in range(40):
        clipped(1.0)
    assert clipped(1e6)[1] == pytest.approx(1e6)
