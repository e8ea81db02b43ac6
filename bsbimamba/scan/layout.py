"""How tensors lie in memory on their way to the kernels, and where results are put."""

import torch
from torch import Tensor


def empty_as(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of x's shape: dense, the last dimension innermost and the others in
    the order in which x has them in memory, where the products before and after find their rows."""
    order = sorted(range(x.dim() - 1), key=lambda i: x.stride(i), reverse=True)
    order.append(x.dim() - 1)
    shape = [x.shape[i] for i in order]
    room = torch.empty(shape, dtype=dtype or x.dtype, device=x.device)
    return room.permute([order.index(i) for i in range(x.dim())])


def laid_out_as(like: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return x `within` like, in a dtype (like's by default) and laid out as `empty_as(like)`."""
    x, room = within(like, x), empty_as(like, dtype)
    return x if (x.dtype, x.stride()) == (room.dtype, room.stride()) else room.copy_(x)


def row_major(x: Tensor) -> Tensor:
    """Return x with its last dimension contiguous; a copy only where it is not so."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def strides(x: Tensor | None) -> tuple[int, ...]:
    """Return those over direction, sequence and step; zeros where x is absent."""
    return (0, 0, 0) if x is None else x.stride()[:3]


def within(like: Tensor, x: Tensor) -> Tensor:
    """Return a view of x that is no larger than `like` in any dimension."""
    return x if x.shape == like.shape else x[tuple(slice(size) for size in like.shape)]


def ways(count: int, reverse: bool) -> tuple[bool, ...]:
    """Return whether each of one or two directions is reversed."""
    return (reverse, not reverse)[:count]


def scanning_order(x: Tensor, reverse: bool) -> Tensor:
    """Return x (r, b, l, ...) turned from the order of time to that of scanning, or back."""
    turned = [
        part.flip(2) if way else part
        for part, way in zip(x.split(1), ways(len(x), reverse), strict=True)
    ]
    return torch.cat(turned) if len(turned) > 1 else turned[0]
