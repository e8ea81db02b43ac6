"""The optimizer: AdamW, what it decays, and the learning rate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from real_mamba_optimized import SelectiveSSM
from training.config import Optim
from training.optimizer import make_optimizer


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
