"""The norm over any dimensions of features (k, b, t, c), forward and backward."""

from typing import Any

import torch
from torch import Tensor


def layer_norm(
    x: Tensor,
    dims: tuple[int, ...],
    epsilon: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Any, Any]:
    """Normalise x (..., c) over `dims`, and apply a gain and an offset (c), in the dtype of x.

    dims: the last dimension, and others before it.

    Returns:
        The result, which lies in memory with `dims` last; the means and inverse deviations as
        PyTorch's operator gives them, None in a graph that is exported.
    """
    if torch.compiler.is_exporting():
        # The operator would fix the number of frames to that of the example.
        x = x - _mean(x, dims)
        x = x * torch.rsqrt(_mean(x.square(), dims) + epsilon)
        return x if weight is None or bias is None else torch.addcmul(bias, x, weight), None, None
    order, sizes, back = _order(x, dims)
    # Autocast would make copies in float32 first. Statistics are of that precision anyway.
    with torch.autocast(x.device.type, enabled=False):
        gain, offset = _expanded(x, sizes, weight, bias)
        y, mean, rstd = torch.native_layer_norm(x.permute(order), sizes, gain, offset, epsilon)
    return y.permute(back), mean, rstd


def layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, weight and bias from that of the result, in the dtype of x."""
    order, sizes, back = _order(x, dims)
    own = _expanded(x, sizes, weight, bias)
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        grad.permute(order), x.permute(order), sizes, mean, rstd, *own, [True, True, True]
    )
    return dx.permute(back), dweight.sum_to_size(weight.shape), dbias.sum_to_size(bias.shape)


def _mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Over `dims`, one by one: onnxruntime adds up a million numbers badly."""
    for dim in reversed(dims):
        x = x.mean(dim, keepdim=True)
    return x


def _order(x: Tensor, dims: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    """Return the dimensions of x as they lie but with `dims` last, the sizes of these, and the
    order back."""
    others = sorted(set(range(x.dim())) - set(dims), key=x.stride, reverse=True)
    order = [*others, *dims]
    return order, [x.shape[dim] for dim in dims], [order.index(dim) for dim in range(x.dim())]


def _expanded(x: Tensor, sizes: list[int], *weights: Tensor | None) -> list[Tensor | None]:
    """Return gain and offset (c) as PyTorch's operators take them.

    On a CPU the operators give statistics in the precision of these, which must not be half.
    """
    dtype = x.dtype if x.is_cuda or x.dtype == torch.float64 else torch.float32
    if dtype != x.dtype and weights[0] is None:
        weights = x.new_ones((), dtype=dtype), x.new_zeros((), dtype=dtype)
    return [None if w is None else w.to(dtype).expand(sizes) for w in weights]
