"""How tensors lie in memory on their way to the kernels, and where results are put."""

from __future__ import annotations

import torch
from torch import Tensor


def empty_as(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room for x's shape: dense, the last dimension innermost and the others in the order in which
    x has them in memory, so that rows stay where the products before and after find them."""
    order = sorted(range(x.dim() - 1), key=lambda i: x.stride(i), reverse=True)
    order.append(x.dim() - 1)
    shape = [x.shape[i] for i in order]
    room = torch.empty(shape, dtype=dtype or x.dtype, device=x.device)
    return room.permute([order.index(i) for i in range(x.dim())])


def laid_out_as(like: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x in a dtype (like's by default) and in the order of memory of `empty_as(like)`."""
    room = empty_as(like, dtype)
    return x if (x.dtype, x.stride()) == (room.dtype, room.stride()) else room.copy_(x)


def row_major(x: Tensor) -> Tensor:
    """x with its last dimension contiguous; a copy only where it is not so."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def strides(x: Tensor | None) -> tuple[int, ...]:
    """Over direction, sequence and step; zeros where x is absent."""
    return (0, 0, 0) if x is None else x.stride()[:3]


def scanning_order(x: Tensor, reverse: bool) -> Tensor:
    """x (r, b, l, ...) from the order of time to that of scanning, or back.

    `reverse` is the first direction's; the second one goes the other way.
    """
    first = x[:1].flip(2) if reverse else x[:1]
    second = x[1:] if reverse else x[1:].flip(2)
    return torch.cat([first, second]) if len(x) > 1 else first
