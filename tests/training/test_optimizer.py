"""What turns gradients into weights beside the optimizer: rate, clipping, average, precision."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bsbimamba.training import precision
from bsbimamba.training.config import Config, ConfigError, Loss, Optim
from bsbimamba.training.flat import Flat
from bsbimamba.training.optimizer import EMA, Optimizer, Schedule
from bsbimamba.training.precision import Precision, Scaler

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


# Steps


class Mixed(nn.Module):
    """Parameters of every kind: matrices of Muon, others, decayed or not, in full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4))
        self.stack = nn.Parameter(torch.randn(3, 6, 4))
        self.stack.matrices = 3  # type: ignore[attr-defined]
        self.kept = nn.Parameter(torch.randn(2, 4))
        self.kept.no_weight_decay = True  # type: ignore[attr-defined]
        self.exact = nn.Parameter(torch.randn(5))
        self.exact.full_precision = True  # type: ignore[attr-defined]
        self.tall = nn.Parameter(torch.randn(8, 6))
        self.tall.matrices = 2  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.first + self.kept.sum() + (self.stack * self.exact[0]).sum() * x
        return y.square().sum() + (self.tall @ self.stack[0]).square().sum() + self.exact.sum()


def made(
    use_muon: bool = False, enabled: bool = False, **optim: Any
) -> tuple[Mixed, Flat, Optimizer]:
    torch.manual_seed(0)
    module, settings = Mixed(), Optim(**optim)
    flat = Flat(module, use_muon)
    scaler = Scaler(torch.device("cpu"), enabled)
    return module, flat, Optimizer(flat, settings, settings.learning_rate, scaler)


YES, NO = torch.tensor(True), torch.tensor(False)


def learn(flat: Flat, optimizer: Optimizer, factor: float = 1.0, go: Tensor = YES) -> Tensor:
    optimizer.backward(flat(torch.linspace(-1, 1, 4)))
    optimizer.clip()
    return optimizer.step(torch.tensor(factor), go)


@pytest.mark.parametrize("use_muon", [False, True])
def test_optimizer_steps_as_torch_does(use_muon: bool) -> None:
    """AdamW for what is not Muon's, and without decay where that is asked for."""
    module, flat, optimizer = made(use_muon, weight_decay=0.1, clip_ratio=math.inf)
    other = copy.deepcopy(module).requires_grad_(True)
    muons = ("stack", "tall") if use_muon else ()
    named = [(name, p) for name, p in other.named_parameters() if name not in muons]
    groups = [
        {"params": [p for name, p in named if (name == "kept") == kept], "weight_decay": decay}
        for kept, decay in ((True, 0.0), (False, 0.1))
    ]
    expected = torch.optim.AdamW(groups, 2e-3, (0.8, 0.99))
    stacks = [nn.Parameter(x.clone()) for n in muons for x in _matrices(module, n)]
    of_muon = torch.optim.Muon(stacks, 2e-3, 0.1, adjust_lr_fn="match_rms_adamw") if muons else None
    for factor in (1.0, 0.5, 0.25):
        other.zero_grad()
        other.load_state_dict(module.state_dict())
        other(torch.linspace(-1, 1, 4)).backward()
        gradients = {name: p.grad for name, p in other.named_parameters()}
        for group in expected.param_groups:
            group["lr"] = 2e-3 * factor
        expected.step()
        if of_muon:
            for p, grad in zip(
                stacks, (g for n in muons for g in _matrices(module, n, gradients[n])), strict=True
            ):
                p.grad = grad
            of_muon.param_groups[0]["lr"] = 2e-3 * factor
            before = [p.detach().clone() for p in stacks]
            of_muon.step()
        assert learn(flat, optimizer, factor) == 1
        for name, p in named:
            torch.testing.assert_close(getattr(module, name), p, rtol=1e-5, atol=1e-6)
        if of_muon:
            got = [x for n in muons for x in _matrices(module, n)]
            for mine, its, was in zip(got, stacks, before, strict=True):  # torch's are bfloat16
                assert (mine - its).norm() < 0.05 * (its - was).norm()
                with torch.no_grad():
                    its.copy_(mine)


def _matrices(module: Mixed, name: str, x: Tensor | None = None) -> Tensor:
    """The matrices of a parameter, one by one."""
    parameter = getattr(module, name)
    x = parameter.detach() if x is None else x
    return x.reshape(parameter.matrices if hasattr(parameter, "matrices") else 1, -1, x.shape[-1])


@pytest.mark.parametrize("why", ["told", "overflow"])
def test_step_that_is_left_out_changes_nothing(why: str) -> None:
    module, flat, optimizer = made(True, enabled=why == "overflow")
    average = EMA(module, flat, 0.9)
    for _ in range(3):
        average.update(flat, learn(flat, optimizer))
    parts = {"model": module, "average": average, "optimizer": optimizer}
    before = copy.deepcopy({name: part.state_dict() for name, part in parts.items()})
    optimizer.backward(flat(torch.full((4,), math.nan if why == "told" else math.inf)))
    optimizer.clip()
    assert bool(optimizer.sound(torch.tensor(1.0))) is (why == "overflow")
    taken = optimizer.step(torch.tensor(1.0), NO if why == "told" else YES)
    average.update(flat, taken)
    assert taken == 0
    after = {name: part.state_dict() for name, part in parts.items()}
    if why == "overflow":
        assert float(after["optimizer"].pop("factor")) == 32768
        assert float(before["optimizer"].pop("factor")) == 65536
        after["optimizer"].pop("good"), before["optimizer"].pop("good")
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    learn(flat, optimizer)
    assert module.first.isfinite().all()


def test_flat_network_computes_in_autocasts_precision_but_for_what_is_marked() -> None:
    _, flat, _ = made()
    seen = {name: x.dtype for name, x in flat.views(flat.tensor, torch.bfloat16).items()}
    full = {name for name, dtype in seen.items() if dtype == torch.float32}
    assert full == {"kept", "exact"}


@pytest.mark.parametrize("ratio", [3.0, math.inf])
def test_clip_limits_norms_to_the_ratio_times_the_median_of_the_last_128(ratio: float) -> None:
    """Of 32 at least; those of skipped steps, zeros and what is not finite are not among them."""
    _, flat, optimizer = made(clip_ratio=ratio)
    history: list[float] = []
    rng, clipped, count = np.random.default_rng(0), 0, flat.tensor.numel()
    for step in range(400):
        # It grows, as that of a training may, with a burst, and something unusual, now and then.
        norm = 1.01**step * rng.uniform(0.5, 1.5) * (50 if step % 11 == 0 else 1)
        norm = {7: math.nan, 17: math.inf, 27: 0.0}.get(step % 37, norm)
        flat.tensor.grad = torch.full_like(flat.tensor, norm / math.sqrt(count))
        before = flat.tensor.grad.clone()
        assert float(optimizer.clip()) == pytest.approx(norm, rel=1e-5, nan_ok=True)
        recent = sorted(history[-128:])
        limit = ratio * recent[(len(recent) - 1) // 2] if len(recent) >= 32 else math.inf
        if math.isfinite(norm):
            assert float(flat.tensor.grad.norm()) == pytest.approx(min(norm, limit), rel=1e-4)
            assert torch.equal(flat.tensor.grad, before) == (norm <= limit)
            clipped += norm > limit
        taken = bool(step % 5) and math.isfinite(norm)  # the others are skipped
        optimizer.step(torch.tensor(0.0), YES if taken else NO)
        history += [norm] if taken and norm > 0 else []
    assert (clipped > 20) == (ratio == 3.0)


def test_average_is_exponential_and_forgets_its_start() -> None:
    module, flat, _ = made()
    average = EMA(module, flat, 0.2)
    expected = module.first.detach().double()
    for step, decay in enumerate((1 / 10, 2 / 11, 0.2, 0.2)):  # min(0.2, (1 + n) / (10 + n))
        with torch.no_grad():
            module.first.fill_(step**2)
        average.update(flat, torch.tensor(1.0))
        expected = decay * expected + (1 - decay) * step**2
    torch.testing.assert_close(average.model.first.double(), expected, rtol=1e-6, atol=0)


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
