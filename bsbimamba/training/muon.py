"""Muon, an optimizer that orthogonalises the updates of hidden matrices, and AdamW for all else."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_STEPS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


def matrices(parameter: Tensor) -> int:
    """Return how many matrices of equal size a parameter holds, one below the other.

    The module that makes a hidden matrix, or a stack of them, says so in the parameter's attribute
    `matrices`. Without it this is 0, and the parameter is AdamW's.
    """
    return getattr(parameter, "matrices", 0)


def orthogonalise(x: Tensor) -> Tensor:
    """Approximate the orthogonal matrix nearest to each of a batch (n, rows, columns).

    Five Newton-Schulz steps of a quintic polynomial keep the singular vectors. They bring singular
    values from 0.0015 of the Frobenius norm on to between 0.68 and 1.21. On CUDA devices that have
    bfloat16 they are computed in it.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = _COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    half = x.is_cuda and torch.cuda.get_device_capability(x.device) >= (8, 0)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    y = (x / norm.clamp_min(1e-7)).to(torch.bfloat16 if half else x.dtype)
    for _ in range(_STEPS):
        gram = torch.bmm(y.mT, y) if tall else torch.bmm(y, y.mT)  # the smaller of the two
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        left, right = (y, factor) if tall else (factor, y)
        y = torch.baddbmm(y, left, right, beta=a)
    return y.to(x.dtype)


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


class Muon(torch.optim.Optimizer):
    """Optimize the groups with `use_muon` by Muon, and all others by fused AdamW.

    Muon's step is the orthogonalised Nesterov momentum of each matrix, times
    0.2 √max(rows, columns). It is then as large as AdamW's, so that one learning rate fits both
    (Liu et al., "Muon is scalable for LLM training", 2025, equation 4). Weight decay is decoupled.
    Matrices of one size are computed as one batch, whatever parameters they come from.

    Args:
        groups: of parameters; those with `use_muon` hold parameters with the attribute `matrices`.
        lr: the learning rate. A group's may be set to a tensor: nothing is read on the host.
        betas, weight_decay: as in `torch.optim.AdamW`.
        momentum: of Muon.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        defaults = {
            "use_muon": False,
            "lr": lr,
            "betas": betas,
            "eps": 1e-8,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "fused": True,  # makes `load_state_dict` put AdamW's step counts on the device
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the present gradients. Parameters without one are left alone."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._muon if group["use_muon"] else self._adamw)(parameters, group)

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = _gradients(parameters)
        (momenta,) = self._states(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])

        updates = [
            u.reshape(matrices(p), -1, p.shape[-1])
            for p, u in zip(parameters, nesterov, strict=True)
        ]
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for i, update in enumerate(updates):
            alike[update.shape[1:]].append(i)
        for size, members in alike.items():
            batch = orthogonalise(torch.cat([updates[i] for i in members]))
            batch = batch * (-0.2 * max(size) ** 0.5 * group["lr"])
            parts = batch.split([len(updates[i]) for i in members])
            for i, part in zip(members, parts, strict=True):
                updates[i] = part.view_as(parameters[i])

        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
        means, squares = self._states(parameters, "exp_avg", "exp_avg_sq")
        adamw(
            parameters,
            _gradients(parameters),
            means,
            squares,
            [],
            [self.state[p]["step"] for p in parameters],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _states(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """Return the named states of parameters, which begin as zeros."""
        for p in parameters:
            for name in names:
                if name not in self.state[p]:
                    self.state[p][name] = torch.zeros_like(p)
        return [[self.state[p][name] for p in parameters] for name in names]
