"""Weights of several modules put together, so that one product computes with all of them."""

from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Sequence[Sequence[int]]  # of the tensors of a sequence


def stacked(*sequences: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Stack the tensors of each sequence, which are of one shape."""
    return padded(*([x[None] for x in sequence] for sequence in sequences))


def padded(*sequences: Sequence[Tensor], copies: bool = False) -> tuple[Tensor, ...]:
    """Concatenate the tensors (n, ...) of each sequence along n.

    Each is padded by zeros at its ends to the largest sizes in its sequence. All sequences together
    take two operators, and none in the backward pass, whose gradients are views.

    copies: give contiguous gradients, by two operators. Tensors that are unflattened parameters
    would else copy theirs one by one.
    """
    shapes = [[x.shape for x in sequence] for sequence in sequences]
    if torch.compiler.is_exporting():  # by operators that ONNX has
        return tuple(
            torch.cat([_with_zeros(x, _whole(own)[1:]) for x in sequence])
            for sequence, own in zip(sequences, shapes, strict=True)
        )
    return _Padded.apply(shapes, copies, *chain(*sequences))


class _Padded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, shapes: Sequence[Shapes], copies: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        wholes = [_whole(own) for own in shapes]
        sizes = [prod(whole) for whole in wholes]
        flat = tensors[0].new_zeros(sum(sizes))
        y = [x.view(whole) for x, whole in zip(flat.split(sizes), wholes, strict=True)]
        torch._foreach_copy_(_parts(y, shapes), list(tensors))
        ctx.shapes, ctx.copies = shapes, copies
        return tuple(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        views = _parts(grads, ctx.shapes)
        if not ctx.copies:
            return None, None, *views
        flat = views[0].new_empty(sum(x.numel() for x in views))
        sizes = [x.numel() for x in views]
        copies = [x.view(y.shape) for x, y in zip(flat.split(sizes), views, strict=True)]
        torch._foreach_copy_(copies, views)
        return None, None, *copies


def _whole(shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of what tensors of these shapes are put together to."""
    counts, *sizes = zip(*shapes, strict=True)
    return sum(counts), *map(max, sizes)


def _parts(wholes: Sequence[Tensor], shapes: Sequence[Shapes]) -> list[Tensor]:
    """Return the views of the wholes that hold the tensors of these shapes."""
    return [
        rows[:, *map(slice, sizes)]
        for whole, own in zip(wholes, shapes, strict=True)
        for rows, (_, *sizes) in zip(whole.split([n for n, *_ in own]), own, strict=True)
    ]


def _with_zeros(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return x (n, ...) with zeros at its ends: (n, *sizes)."""
    missing = [size - own for size, own in zip(sizes, x.shape[1:], strict=True)]
    return F.pad(x, [n for each in reversed(missing) for n in (0, each)])
