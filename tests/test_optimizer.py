"""The optimizer: what it decays, and states of versions before it was fused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from real_mamba_optimized import SelectiveSSM
from training.config import Optim
from training.optimizer import make_optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    x = torch.linspace(-1, 1, 16).reshape(1, 2, 8)
    optimizer.zero_grad()
    scaler.scale(module(x).square().sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_state_that_was_not_fused_goes_on_fused(scaled: bool) -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    optimizer = make_optimizer(module, Optim())
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    step(module, optimizer, scaler)
    other = copy.deepcopy(module)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["fused"] = None
    resumed = make_optimizer(other, Optim())
    resumed.load_state_dict(state)
    assert all(group["fused"] for group in resumed.param_groups)
    assert all(group["fused"] is None for group in state["param_groups"])
    for one, its_own in ((module, optimizer), (other, resumed)):
        step(one, its_own, scaler)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_is_the_usual_one() -> None:
    """Fused or parameter by parameter, the same steps."""
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    other = copy.deepcopy(module)
    optim = Optim()
    usual = torch.optim.AdamW(
        other.parameters(),
        optim.learning_rate,
        (optim.beta1, optim.beta2),
        weight_decay=optim.weight_decay,
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for one, optimizer in ((module, make_optimizer(module, optim)), (other, usual)):
        for _ in range(3):
            step(one, optimizer, scaler)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_marked_parameters_are_not_decayed() -> None:
    ssm = SelectiveSSM(8)
    decayed, free = make_optimizer(ssm, Optim()).param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert {id(p) for p in free["params"]} == {id(ssm.A_log), id(ssm.D)}


class Mixed(nn.Module):
    """Matrices, a stack of matrices, vectors, and parameters that are not to be decayed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 6)
        self.stack = nn.Parameter(torch.randn(3, 6, 6))
        self.kept = nn.Parameter(torch.ones(2, 6))
        self.kept.no_weight_decay = True  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(x).tanh()) @ self.stack * self.kept).sum()


def twin(module: Mixed) -> Mixed:
    """Another of the same weights, marks included, which a deep copy of a parameter loses."""
    other = Mixed()
    other.load_state_dict(module.state_dict())
    return other


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    """A step of the pair is one of AdamW's, and for the matrices one of Muon's."""
    torch.manual_seed(0)
    module = Mixed()
    other, before = twin(module), twin(module)
    optim = Optim(algorithm="muon", weight_decay=0.0)
    off = torch.amp.GradScaler("cpu", enabled=False)
    step(module, make_optimizer(module, optim), off)
    step(other, make_optimizer(other, Optim(weight_decay=0.0)), off)
    for name in ("first.bias", "second.bias", "stack", "kept"):
        assert torch.equal(module.get_parameter(name), other.get_parameter(name)), name
    weights = {name: before.get_parameter(name) for name in ("first.weight", "second.weight")}
    muon = torch.optim.Muon(
        weights.values(), optim.learning_rate, 0.0, adjust_lr_fn="match_rms_adamw"
    )
    step(before, muon, off)
    for name, weight in weights.items():
        assert torch.equal(module.get_parameter(name), weight), name


@pytest.mark.parametrize("scaled", [False, True])
def test_muon_goes_on_from_its_state(scaled: bool) -> None:
    torch.manual_seed(0)
    module = Mixed()
    optim = Optim(algorithm="muon")
    optimizer = make_optimizer(module, optim)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    step(module, optimizer, scaler)
    other, state = twin(module), copy.deepcopy(optimizer.state_dict())
    resumed = make_optimizer(other, optim)
    resumed.load_state_dict(state)
    for one, its_own in ((module, optimizer), (other, resumed)):
        for group in its_own.param_groups:
            group["lr"] = 0.01
        step(one, its_own, scaler)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
