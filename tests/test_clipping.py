"""Clipping by the history of the gradient's norm."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from training.optimizer import GradientClip

CPU = torch.device("cpu")


class Clipped:
    """Two parameters, and what a clip does with gradients of a given norm."""

    def __init__(self, ratio: float = 3.0) -> None:
        self.parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
        self.clip = GradientClip(ratio, CPU)

    def __call__(self, norm: float, accept: bool = True) -> tuple[float, list[Tensor]]:
        """The norm returned, and the gradients afterwards."""
        for p in self.parameters:
            p.grad = torch.full_like(p, norm / math.sqrt(7))
        returned = float(self.clip(self.parameters))
        if accept:
            self.clip.accept()
        return returned, [p.grad for p in self.parameters if p.grad is not None]

    def norm_after(self, norm: float) -> float:
        return float(torch.cat([g.flatten() for g in self(norm)[1]]).norm())


def test_clip_scales_a_burst_to_the_ratio_times_the_median() -> None:
    clipped = Clipped()
    for i in range(1, 42):
        clipped(0.01 * i)  # their median is 0.21
    returned, gradients = clipped(21.0)
    assert returned == pytest.approx(21.0)
    assert float(torch.cat([g.flatten() for g in gradients]).norm()) == pytest.approx(0.63)


def test_clip_leaves_ordinary_gradients_as_they_are_to_the_bit() -> None:
    clipped = Clipped()
    for i in range(64):
        norm = 0.1 * (1 + (i % 10) / 5)
        for gradient in clipped(norm)[1]:
            assert torch.equal(gradient, torch.full_like(gradient, norm / math.sqrt(7)))


def test_clip_begins_when_32_norms_are_known() -> None:
    clipped = Clipped()
    for _ in range(31):
        clipped(1.0)
    assert clipped.norm_after(100.0) == pytest.approx(100.0)
    assert clipped.norm_after(100.0) == pytest.approx(3.0)


def test_clip_forgets_norms_older_than_128_steps() -> None:
    clipped = Clipped()
    for _ in range(128):
        clipped(1.0)
    for _ in range(128):
        clipped(10.0)
    assert clipped.clip.norms.unique().numel() == 1
    assert clipped.norm_after(100.0) == pytest.approx(30.0)


@pytest.mark.parametrize("norm", [math.nan, math.inf, 0.0])
def test_clip_takes_no_norm_that_is_zero_or_not_finite_into_its_history(norm: float) -> None:
    clipped = Clipped()
    for _ in range(40):
        clipped(1.0)
    before = clipped.clip.norms.clone()
    assert clipped(norm)[0] == pytest.approx(norm, nan_ok=True)
    torch.testing.assert_close(clipped.clip.norms, before, rtol=0, atol=0, equal_nan=True)
    assert clipped.norm_after(100.0) == pytest.approx(3.0)


def test_clip_takes_no_norm_of_a_skipped_step_into_its_history() -> None:
    clipped = Clipped()
    clipped(1.0)
    clipped(50.0, accept=False)
    assert clipped.clip.norms.nansum() == pytest.approx(1.0)


def test_clip_with_an_infinite_ratio_never_acts() -> None:
    clipped = Clipped(math.inf)
    for _ in range(40):
        clipped(1.0)
    assert clipped.norm_after(1e6) == pytest.approx(1e6)


def test_clip_resumes_from_its_state() -> None:
    clipped, resumed = Clipped(), Clipped()
    for i in range(50):
        clipped(0.1 * (1 + i % 7))
    resumed.clip.load_state_dict(copy.deepcopy(clipped.clip.state_dict()))
    for norm in (40.0, 0.3, 9.0):
        first, second = clipped(norm)[1], resumed(norm)[1]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(resumed.clip.norms, clipped.clip.norms, equal_nan=True)
