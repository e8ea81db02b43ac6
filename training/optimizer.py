"""The optimizers of generator and discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.config import Optim
from training.muon import Muon, matrices


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimizer that the configuration names, for all parameters of a module.

    "adamw" is AdamW. "muon" is Muon for the parameters marked `matrices`, and AdamW for all others.
    Parameters marked `no_weight_decay` (Mamba's A_log and D) are not decayed.
    """
    use_muon = optim.algorithm == "muon"
    decayed: dict[str, Any] = {"params": []}
    others: dict[str, Any] = {"params": [], "weight_decay": 0.0}
    of_muon: dict[str, Any] = {"params": [], "use_muon": True}
    for p in module.parameters():
        by_adamw = others if getattr(p, "no_weight_decay", False) else decayed
        (of_muon if use_muon and matrices(p) else by_adamw)["params"].append(p)
    groups = [group for group in (decayed, others, of_muon) if group["params"]]
    settings = (optim.learning_rate, (optim.beta1, optim.beta2))
    if use_muon:
        return Muon(groups, *settings, weight_decay=optim.weight_decay)
    # Fused: one launch for all parameters, instead of a dozen for each.
    return torch.optim.AdamW(groups, *settings, weight_decay=optim.weight_decay, fused=True)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    """The gradients of a module's parameters, in their order; zeros where there was none.

    In a process whose part of a batch teaches nothing, they are as many as in the others.
    """
    for parameter in module.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in module.parameters() if p.grad is not None]
