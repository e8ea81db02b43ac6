"""The optimizers of generator and discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.config import Optim


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimizer that the configuration names, for all parameters of a module.

    AdamW leaves those marked `no_weight_decay` (Mamba's A_log and D) undecayed.
    """
    if optim.algorithm == "adam":
        settings = _settings(optim)
        return _fused(torch.optim.Adam(module.parameters(), optim.learning_rate, **settings))
    if optim.algorithm == "muon":
        return MuonWithAdamW(module, optim)
    return _adamw(list(module.parameters()), optim)


def _no_decay(parameter: nn.Parameter) -> bool:
    return getattr(parameter, "no_weight_decay", False)


def _settings(optim: Optim) -> dict[str, Any]:
    # Fused: one launch for all parameters, instead of a dozen for each.
    return {"betas": (optim.beta1, optim.beta2), "fused": True}


def _adamw(parameters: list[nn.Parameter], optim: Optim) -> torch.optim.Optimizer:
    marked = [p for p in parameters if _no_decay(p)]
    others = [p for p in parameters if not _no_decay(p)]
    groups = [
        {"params": others, "weight_decay": optim.weight_decay},
        {"params": marked, "weight_decay": 0.0},
    ]
    return _fused(
        torch.optim.AdamW(
            [g for g in groups if g["params"]], optim.learning_rate, **_settings(optim)
        )
    )


def _fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, fused whatever the state that it takes over says of itself."""

    def keep(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "fused": True, "foreach": None} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(keep)
    return optimizer


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices of a module, AdamW for all else; one optimizer to those who use it.

    Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) replaces a
    matrix' momentum by the nearest orthogonal matrix, here times 0.2 √(the longer side), which
    makes its steps as large as AdamW's (Liu et al., "Muon is scalable for LLM training", 2025,
    equation 4), so that one learning rate fits both. A stack of matrices, one a band, and the
    discriminator's convolutions are AdamW's.
    """

    def __init__(self, module: nn.Module, optim: Optim) -> None:
        super().__init__(module.parameters(), {})
        matrices = [p for p in module.parameters() if p.ndim == 2 and not _no_decay(p)]
        chosen = {id(p) for p in matrices}
        others = [p for p in module.parameters() if id(p) not in chosen]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if others:
            self._parts["adamw"] = _adamw(others, optim)
        if matrices:
            self._parts["muon"] = torch.optim.Muon(
                matrices, optim.learning_rate, optim.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        self._gather()

    def _gather(self) -> None:
        # The very groups of the parts: a rate that is set here is theirs.
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._gather()  # they have made new ones


def gradients(module: nn.Module) -> list[torch.Tensor]:
    """The gradients of a module's parameters, in their order; zeros where there was none.

    In a process whose part of a batch teaches nothing, they are as many as in the others.
    """
    for parameter in module.parameters():
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return [p.grad for p in module.parameters() if p.grad is not None]
