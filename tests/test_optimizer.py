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


@pytest.mark.parametrize("algorithm", ["adam", "adamw"])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_state_that_was_not_fused_goes_on_fused(algorithm: str, scaled: bool) -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 4)
    optimizer = make_optimizer(module, Optim(algorithm=algorithm))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    step(module, optimizer, scaler)
    other = copy.deepcopy(module)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["fused"] = None
    resumed = make_optimizer(other, Optim(algorithm=algorithm))
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
