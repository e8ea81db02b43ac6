"""How tensors reach the kernels: padded to whole vectors, row by row, and as flat numpy arrays."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def pad(x: Tensor, width: int) -> Tensor:
    """Zeros behind the last dimension up to `width`. No width of our networks needs them."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def cut(x: Tensor, width: int) -> Tensor:
    """The inverse of `pad`."""
    return x if x.shape[-1] == width else empty_as(x[..., :width]).copy_(x[..., :width])


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


def flat(x: Tensor | None, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """All of the memory that x reaches over as one array, bfloat16 as uint16.

    Where x is absent, an array of size 0 of `dtype`.
    """
    if x is None:
        x = torch.empty(0, dtype=dtype)
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    values = x.detach().as_strided((reach + 1 if x.numel() else 0,), (1,))
    return values.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else values.numpy()


def current_device(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; this makes it that of x (on a CPU, none)."""
    return torch.cuda.device(x.device if x.is_cuda else -1)
