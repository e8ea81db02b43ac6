"""Muon: the orthogonalised updates of hidden matrices.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from functools import cache

import torch
from torch import Tensor

_STEPS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
Shape = tuple[int, int, int]  # matrices, rows, columns


def matrices(parameter: Tensor) -> int:
    """Return how many matrices of equal size a parameter holds, one below the other.

    The module that makes a hidden matrix, or a stack of them, says so in the parameter's attribute
    `matrices`. Without it this is 0, and the parameter is AdamW's.
    """
    return getattr(parameter, "matrices", 0)


def orthogonalise(x: Tensor) -> Tensor:
    """Approximate the orthogonal matrix nearest to each of a batch (n, rows, columns).

    There must be no more rows than columns. Five Newton-Schulz steps of a quintic polynomial keep
    the singular vectors. They bring singular values from 0.0015 of the Frobenius norm on to between
    0.68 and 1.21. Rows and columns of zeros stay zeros. On CUDA devices that have bfloat16 the
    steps are computed in it.
    """
    a, b, c = _COEFFICIENTS
    half = x.is_cuda and torch.cuda.get_device_capability(x.device) >= (8, 0)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    y = (x / norm.clamp_min(1e-7)).to(torch.bfloat16 if half else x.dtype)
    for _ in range(_STEPS):
        gram = torch.bmm(y, y.mT)
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.to(x.dtype)


def split(flat: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Return views (n, rows, columns) of a tensor in which stacks of matrices lie one by one."""
    parts = flat.split([n * rows * columns for n, rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def muon_update(momentum: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Return the update of each stack of matrices (n, rows, columns), whose momenta lie one by one.

    It is the orthogonal matrix times 0.2 √max(rows, columns), and then as large as AdamW's, so that
    one learning rate fits both (Liu et al., "Muon is scalable for LLM training", 2025, equation 4).

    Matrices are computed in batches (`_batches`): an operator costs a GPU more than the zeros that
    the smaller ones are padded with.
    """
    stacks = split(momentum, shapes)
    updates = list(stacks)
    for members in _batches(tuple(shapes)):
        own = [shapes[i] for i in members]
        batch = momentum.new_zeros(_size(own))
        torch._foreach_copy_(_places(batch, own), [stacks[i] for i in members])
        for i, place in zip(members, _places(orthogonalise(batch), own), strict=True):
            updates[i] = place
    torch._foreach_mul_(updates, [0.2 * max(shape[1:]) ** 0.5 for shape in shapes])
    return updates


def _size(shapes: list[Shape]) -> Shape:
    """Return the shape of a batch of stacks, whose matrices have no more rows than columns."""
    rows = max(min(shape[1:]) for shape in shapes)
    return sum(n for n, *_ in shapes), rows, max(max(shape[1:]) for shape in shapes)


def _places(batch: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Return the views of a batch where its stacks lie."""
    parts = zip(batch.split([n for n, *_ in shapes]), shapes, strict=True)
    return [(x.mT if rows > columns else x)[:, :rows, :columns] for x, (_, rows, columns) in parts]


@cache
def _batches(shapes: tuple[Shape, ...]) -> list[list[int]]:
    """Return the numbers of the stacks that are computed as one batch each.

    Those whose longer sides are equal; and those before, whose longer sides are smaller, where
    their padding adds at most a quarter to the multiplications of both.
    """

    def multiplications(members: list[int]) -> int:
        n, rows, columns = _size([shapes[i] for i in members])
        return n * rows**2 * (2 * columns + rows)

    batches: list[list[int]] = []
    for longer in sorted({max(shape[1:]) for shape in shapes}):
        batch = [i for i, shape in enumerate(shapes) if max(shape[1:]) == longer]
        apart = multiplications(batch) + (multiplications(batches[-1]) if batches else 0)
        if batches and multiplications(batches[-1] + batch) <= 1.25 * apart:
            batch = batches.pop() + batch
        batches.append(batch)
    return batches
