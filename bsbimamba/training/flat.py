"""All parameters of a network in one tensor, so that one operator computes with all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bsbimamba.training.muon import matrices


class Flat(nn.Module):
    """A network whose parameters are views of one tensor, its only parameter here.

    They lie in this order: the matrices that are Muon's (`use_muon`), the others that are decayed,
    and those that are not (marked `no_weight_decay`: Mamba's A_log and D). Within the second part,
    those that are marked `full_precision` come last.

    Called, it computes the network with copies of them in autocast's precision, made by one
    operator, but for those in full precision.

    Attributes:
        tensor: the values, (n).
        muon, decayed: where the first and the second part end.
        stacks: names of the matrices that are Muon's, with their shapes (n, rows, columns).
    """

    def __init__(self, network: nn.Module, use_muon: bool) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that its parameters are not this module's, too

        def part(p: Tensor) -> int:
            if use_muon and matrices(p):
                return 0
            if getattr(p, "no_weight_decay", False):
                return 3
            return 1 + getattr(p, "full_precision", False)

        named = sorted(network.named_parameters(), key=lambda item: part(item[1]))
        self._names = [name for name, _ in named]
        self._shapes = [p.shape for _, p in named]
        sizes = [[p.numel() for _, p in named if part(p) == i] for i in range(4)]
        self._sizes = sizes[0] + sizes[1], sizes[2] + sizes[3]
        self.muon, self.decayed = sum(sizes[0]), sum(sizes[0] + sizes[1] + sizes[2])
        muon = [p for _, p in named if not part(p)]
        self.stacks = [
            (matrices(p), p.numel() // matrices(p) // p.shape[-1], p.shape[-1]) for p in muon
        ]
        self.tensor = nn.Parameter(torch.cat([p.detach().flatten() for _, p in named]))
        self.place(network, self.tensor.detach())

    def place(self, network: nn.Module, flat: Tensor) -> None:
        """Make the parameters of such a network views of a tensor (n)."""
        views = self.views(flat)
        for name, parameter in network.named_parameters():
            parameter.data = views[name]

    def views(self, flat: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return the parts of a tensor (n) by the parameters' names, in their shapes.

        dtype: of those that are not in full precision; by default their own.
        """
        halves = flat.split([sum(sizes) for sizes in self._sizes])
        lower = halves[0] if dtype is None else halves[0].to(dtype)
        parts = (*lower.split(self._sizes[0]), *halves[1].split(self._sizes[1]))
        shaped = (x.view(shape) for x, shape in zip(parts, self._shapes, strict=True))
        return dict(zip(self._names, shaped, strict=True))

    def forward(self, *inputs: Tensor, frozen: bool = False) -> Any:
        """Compute the network. frozen: without gradients of the parameters."""
        device = self.tensor.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if frozen:
            weights = self.views(self.tensor.detach(), dtype)
        else:
            weights = dict(zip(self._names, _Views.apply(self.tensor, self, dtype), strict=True))
        return functional_call(self._network[0], weights, inputs)


class _Views(torch.autograd.Function):
    """`Flat.views`, whose gradients one operator puts together."""

    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, flat: Flat, dtype: torch.dtype | None
    ) -> tuple[Tensor, ...]:
        ctx.flat = flat
        ctx.set_materialize_grads(False)
        return tuple(flat.views(tensor, dtype).values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        whole = torch.zeros_like(ctx.flat.tensor)
        places = list(ctx.flat.views(whole).values())
        given = [
            (place, grad) for place, grad in zip(places, grads, strict=True) if grad is not None
        ]
        torch._foreach_copy_([place for place, _ in given], [grad for _, grad in given])
        return whole, None, None
