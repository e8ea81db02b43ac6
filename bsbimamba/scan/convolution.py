"""Mamba's short convolution and the SiLU behind it, both passes as operators.

The backends: numba kernels on a CPU, which take less than half of PyTorch's time; Triton kernels on
a GPU; PyTorch for all else. Shapes: u (r, b, l, d), for r = 1 or 2 directions of which the second
looks the other way; weight (r, d, taps), the last tap that of the present step; bias (r, d).
"""

# No postponed annotations here: torch reads the schema of an operator from them.

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bsbimamba.scan.cpu import launch as cpu
from bsbimamba.scan.dispatch import cannot_run
from bsbimamba.scan.layout import empty_as, laid_out_as, scanning_order, within
from bsbimamba.scan.triton import launch as triton


@torch.library.custom_op("bsbimamba::conv_silu", mutates_args=())
def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """Return silu of the depthwise convolution over l of u, looking back (ahead, if reversed), in
    u's shape and dtype. Autograd sees nothing of it."""
    forward, _ = _backend(u)
    with torch.autocast(u.device.type, enabled=False):
        return laid_out_as(u, forward(u, *_prepared(u, weight, bias), reverse))


@convolution_forward.register_fake
def _(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    return empty_as(u)


@register_flop_formula(torch.ops.bsbimamba.conv_silu)
def _(u: Any, weight: Any, *arguments: Any, **keywords: Any) -> int:
    return 2 * math.prod(u) * weight[-1]  # shapes


@torch.library.custom_op("bsbimamba::conv_silu_backward", mutates_args=())
def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> list[Tensor]:
    """Return the gradients of u, weight and bias, each in its argument's shape and dtype."""
    _, backward = _backend(u)
    with torch.autocast(u.device.type, enabled=False):
        du, dweight, dbias = backward(grad_out, u, *_prepared(u, weight, bias), reverse)
    parameters = ((weight, dweight.mT), (bias, dbias))
    others = (within(x, grad).to(x.dtype).contiguous() for x, grad in parameters)
    return [laid_out_as(u, du), *others]


@convolution_backward.register_fake
def _(grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> list[Tensor]:
    return [empty_as(u), weight.new_empty(weight.shape), bias.new_empty(bias.shape)]


def _prepared(u: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight as (r, taps, d) and bias, in float32 at least."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    return weight.to(dtype).mT.contiguous(), bias.to(dtype).contiguous()


def _plain(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return input (b, r d, l + taps - 1), kernel and output before SiLU of PyTorch's convolution:
    the channels of all directions at once."""
    x = scanning_order(u.to(bias.dtype), reverse).permute(1, 0, 3, 2).flatten(1, 2)
    x, kernel = F.pad(x, (weight.shape[1] - 1, 0)), weight.mT.flatten(0, 1)[:, None]
    return x, kernel, F.conv1d(x, kernel, bias.flatten(), groups=bias.numel())


def _plain_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    _, _, y = _plain(u, weight, bias, reverse)
    return scanning_order(F.silu(y).unflatten(1, bias.shape).permute(1, 0, 3, 2), reverse)


def _plain_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> tuple[Tensor, ...]:
    x, kernel, y = _plain(u, weight, bias, reverse)
    grad = scanning_order(grad_out.to(bias.dtype), reverse).permute(1, 0, 3, 2).flatten(1, 2)
    grad = torch.ops.aten.silu_backward(grad, y)
    dx, dkernel, dbias = torch.ops.aten.convolution_backward(
        *(grad, x, kernel, [bias.numel()], [1], [0], [1], False, [0], bias.numel(), [True] * 3)
    )
    dx = dx[..., weight.shape[1] - 1 :].unflatten(1, bias.shape).permute(1, 0, 3, 2)
    return scanning_order(dx, reverse), dkernel.view(*bias.shape, -1).mT, dbias.view(bias.shape)


# Fastest first; PyTorch can run everywhere. Each has a function of (u, weight, bias, reverse) and
# one of (grad_out, u, weight, bias, reverse), which returns the gradients of u, weight and bias.
# Weight and its gradient are (r, taps, d). Results may have any float dtype.
_BACKENDS = {
    "cpu": (cpu.convolution_forward, cpu.convolution_backward),
    "triton": (triton.convolution_forward, triton.convolution_backward),
    "torch": (_plain_forward, _plain_backward),
}


def _backend(u: Tensor) -> Any:
    return next(_BACKENDS[x] for x in _BACKENDS if x == "torch" or cannot_run(u, x) is None)
