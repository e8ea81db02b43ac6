"""The optimizer and its learning rate, the same for both players."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.config import Optim


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimizer that the configuration names, for all parameters of a module.

    AdamW leaves those marked `no_weight_decay` (Mamba's A_log and D) undecayed.
    """
    # Fused: one launch for all parameters, instead of a dozen for each.
    settings: dict[str, Any] = {"betas": (optim.beta1, optim.beta2), "fused": True}
    if optim.algorithm == "adam":
        return _fused(torch.optim.Adam(module.parameters(), optim.learning_rate, **settings))
    marked = [p for p in module.parameters() if getattr(p, "no_weight_decay", False)]
    others = [p for p in module.parameters() if not getattr(p, "no_weight_decay", False)]
    groups = [
        {"params": others, "weight_decay": optim.weight_decay},
        {"params": marked, "weight_decay": 0.0},
    ]
    return _fused(
        torch.optim.AdamW([g for g in groups if g["params"]], optim.learning_rate, **settings)
    )


def _fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, fused whatever the state that it takes over says of itself."""

    def keep(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "fused": True, "foreach": None} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep)
    return optimizer


def learning_rate(optim: Optim, epoch: int) -> float:
    """The rate during an epoch, counted from 0: a function of that alone."""
    return optim.learning_rate * optim.decay ** (epoch // optim.decay_every)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    """The gradients of a module's parameters, in their order; zeros where there was none.

    In a process whose part of a batch teaches nothing, they are as many as in the others.
    """
    for parameter in module.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in module.parameters() if p.grad is not None]
