"""What turns gradients into weights beside the optimizer: rate, clipping, average, precision."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bsbimamba.training import precision
from bsbimamba.training.config import Config, ConfigError, Loss, Optim
from bsbimamba.training.optimizer import EMA, GradientClip, Schedule
from bsbimamba.training.precision import Precision

EPOCH = 8

# The schedule


def schedule(loss: Loss | None = None, **optim: float) -> Schedule:
    return Schedule(Config(loss=loss or Loss(), optim=Optim(**optim)), EPOCH)


@pytest.mark.parametrize(
    ("optim", "factors"),
    [
        # The defaults: constant, but for 100 steps of warm-up and a fall over the last fifth.
        ({"steps": 8000}, {0: 0.01, 49: 0.5, 99: 1, 6400: 1, 7200: 0.5, 7999: 1 / 1600, 8000: 0}),
        (
            {"epochs": 3, "warmup_steps": 4, "fall": 0.25},
            {0: 0.25, 2: 0.75, 3: 1, 17: 1, 18: 1, 21: 0.5, 23: 1 / 6, 24: 0, 30: 0},
        ),
        (
            {"steps": 50, "warmup_steps": 0, "fall": 0.0, "decay": 0.5, "decay_every": 2},
            {0: 1, 15: 1, 16: 0.5, 31: 0.5, 32: 0.25, 49: 0.125},
        ),
    ],
)
def test_rate_rises_decays_by_epochs_and_falls_to_zero(optim: dict, factors: dict) -> None:
    made = schedule(**optim)
    assert {step: made.factor(step) for step in factors} == pytest.approx(factors)


@pytest.mark.parametrize(
    ("metric", "metric_from", "fall", "settled"),
    [
        (0.0, 0.0, 0.2, 80),
        (0.0, 0.5, 0.0, 100),  # there is no metric term
        (0.05, 0.5, 0.2, 50),
        (0.05, 0.9, 0.2, 80),
    ],
)
def test_runs_are_settled_up_to_the_first_step_that_depends_on_their_length(
    metric: float, metric_from: float, fall: float, settled: int
) -> None:
    loss = Loss(metric=metric, metric_from=metric_from)
    short, long = (schedule(loss, steps=steps, fall=fall) for steps in (100, 400))
    assert short.settled == settled
    for step in range(settled):
        assert short.factor(step) == long.factor(step)
        assert not metric or (step >= short.metric_from) == (step >= long.metric_from)


# Clipping and averaging


@pytest.mark.parametrize("ratio", [3.0, math.inf])
def test_clip_limits_norms_to_the_ratio_times_the_median_of_the_last_128(ratio: float) -> None:
    """Of 32 at least; those of skipped steps, zeros and what is not finite are not among them."""
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    clip, history = GradientClip(ratio, torch.device("cpu")), []
    rng, clipped = np.random.default_rng(0), 0
    for step in range(400):
        # It grows, as that of a training may, with a burst, and something unusual, now and then.
        norm = 1.01**step * rng.uniform(0.5, 1.5) * (50 if step % 11 == 0 else 1)
        norm = {7: math.nan, 17: math.inf, 27: 0.0}.get(step % 37, norm)
        for p in parameters:
            p.grad = torch.full_like(p, norm / math.sqrt(7))
        before = parameters[0].grad.clone()
        assert float(clip(parameters)) == pytest.approx(norm, rel=1e-5, nan_ok=True)
        recent = sorted(history[-128:])
        limit = ratio * recent[(len(recent) - 1) // 2] if len(recent) >= 32 else math.inf
        if math.isfinite(norm):
            after = float(nn.utils.get_total_norm([p.grad for p in parameters]))
            assert after == pytest.approx(min(norm, limit), rel=1e-4)
            assert torch.equal(parameters[0].grad, before) == (norm <= limit)
            clipped += norm > limit
        if step % 5:  # the others are skipped
            clip.accept()
            history += [norm] if math.isfinite(norm) and norm > 0 else []
    assert (clipped > 20) == (ratio == 3.0)


def test_average_is_exponential_and_forgets_its_start() -> None:
    model = nn.BatchNorm1d(3)
    average = EMA(model, 0.2)
    expected = torch.ones(3, dtype=torch.float64)
    for step, decay in enumerate((1 / 10, 2 / 11, 0.2, 0.2)):  # min(0.2, (1 + n) / (10 + n))
        with torch.no_grad():
            model.weight.fill_(step**2)
        model.running_mean.fill_(step)
        average.update(model)
        expected = decay * expected + (1 - decay) * step**2
    torch.testing.assert_close(average.model.weight.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(average.model.running_mean, model.running_mean)


# Mixed precision on a CPU


@pytest.mark.parametrize(
    ("asked", "able", "capabilities", "chosen"),
    [
        ("fp16", True, {}, "fp16"),
        ("fp16", False, {}, None),
        ("auto", True, {"avx512_bf16": True}, "bf16"),
        ("auto", True, {"avx512_bf16": False}, "off"),  # oneDNN imitates the instructions, slowly
        ("auto", True, {"bf16": True}, "off"),  # ARM, where no step was measured
        ("auto", False, {"avx512_bf16": True}, "off"),
    ],
)
def test_precision_is_what_the_cpu_can_do_and_by_itself_what_it_does_faster(
    asked: str, able: bool, capabilities: dict, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda amp: able)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    if chosen is None:
        with pytest.raises(ConfigError):
            Precision("cpu", asked)
    else:
        assert Precision("cpu", asked).amp == chosen
