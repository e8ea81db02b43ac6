"""`causal_conv_silu`: Mamba's short convolution and the SiLU behind it, as one operator.

The backends: numba kernels on a CPU, which take less than half of PyTorch's time; Triton kernels on
a GPU; PyTorch for all else. The package causal-conv1d is used only where it is asked for.
"""

# No postponed annotations here: torch reads the schema of an operator from them.

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bsbimamba.scan.cpu import launch as cpu
from bsbimamba.scan.dispatch import cannot_run, checked
from bsbimamba.scan.interface import check_arguments, refuse_forward_mode
from bsbimamba.scan.layout import empty_as, laid_out_as, scanning_order, within
from bsbimamba.scan.triton import launch as triton

# In the order of preference: "torch" can run everywhere, so that "auto" goes no further.
BACKENDS = ("cpu", "triton", "torch", "causal_conv1d")
_AXES = {"u": "bld", "weight": "dk", "bias": "d"}
# Each has convolution_forward(u, weight, bias, reverse), and convolution_backward(grad_out, u,
# weight, bias, reverse) with the gradients of u, weight and bias, all in any float dtype.
_KERNELS: dict[str, Any] = {"cpu": cpu, "triton": triton}


def causal_conv_silu(
    u: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False, backend: str = "auto"
) -> Tensor:
    """Return silu of the depthwise convolution over l of u, looking back (ahead, if reversed).

    Args:
        u: (b, l, d), or (r, b, l, d) for r = 1 or 2 directions at once, of which the second looks
            the other way.
        weight: (d, taps), or (r, d, taps), the last tap that of the present step. bias: (d), or
            (r, d).
        backend: one of `BACKENDS`, or "auto".

    Returns:
        As u, in its shape and dtype. Gradients have the dtypes of the arguments.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit, or the backend cannot run.
    """
    single = not isinstance(u, Tensor) or u.dim() == 3
    check_arguments({"u": u, "weight": weight, "bias": bias}, _AXES, directions=not single)
    if weight.shape[-1] < 1:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected at least one tap")
    if single:
        u, weight, bias = u[None], weight[None], bias[None]
    name = _choose(backend, u, weight)
    if not u.numel():
        out = u.clone()
    elif name in _FUNCTIONS:
        out = _FUNCTIONS[name](u, weight, bias, reverse)
    else:
        refuse_forward_mode()
        out = conv_silu(u, weight, bias, reverse, name)
    return out[0] if single else out


@torch.library.custom_op("bsbimamba::conv_silu", mutates_args=())
def conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str) -> Tensor:
    with torch.autocast(u.device.type, enabled=False):
        return laid_out_as(u, _KERNELS[backend].convolution_forward(u, weight, bias, reverse))


@conv_silu.register_fake
def _(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str) -> Tensor:
    return empty_as(u)


@register_flop_formula(torch.ops.bsbimamba.conv_silu)
def _(u: Any, weight: Any, *arguments: Any, **keywords: Any) -> int:
    return 2 * math.prod(u) * weight[-1]  # shapes


@torch.library.custom_op("bsbimamba::conv_silu_backward", mutates_args=())
def conv_silu_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str
) -> list[Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        grads = _KERNELS[backend].convolution_backward(grad_out, u, weight, bias, reverse)
    others = (
        within(x, grad).to(x.dtype).contiguous()
        for grad, x in zip(grads[1:], (weight, bias), strict=True)
    )
    return [laid_out_as(u, grads[0]), *others]


@conv_silu_backward.register_fake
def _(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str
) -> list[Tensor]:
    return [empty_as(u), weight.new_empty(weight.shape), bias.new_empty(bias.shape)]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    grads = conv_silu_backward(grad_out, *ctx.saved_tensors, *ctx.options)
    wanted = (
        grad if need else None for grad, need in zip(grads, ctx.needs_input_grad, strict=False)
    )
    return *wanted, None, None


conv_silu.register_autograd(_backward, setup_context=_setup_context)


def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """Return `causal_conv_silu` of (r, b, l, d) without gradient, for backward passes by hand."""
    name = _choose("auto", u, weight)
    if name == "torch":
        return _plain(u, weight, bias, reverse)
    return conv_silu(u, weight, bias, reverse, name)


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> Sequence[Tensor]:
    """Return the gradients of u, weight and bias."""
    name = _choose("auto", u, weight)
    if name != "torch":
        return conv_silu_backward(grad_out, u, weight, bias, reverse, name)
    with torch.enable_grad():
        u, weight, bias = (x.detach().requires_grad_() for x in (u, weight, bias))
        return torch.autograd.grad(_plain(u, weight, bias, reverse), (u, weight, bias), grad_out)


def _choose(backend: str, u: Tensor, weight: Tensor) -> str:
    if backend == "auto":
        return next(name for name in BACKENDS if _why_not(name, u, weight) is None)
    return checked(backend, BACKENDS, lambda name: _why_not(name, u, weight), "torch")


def _why_not(name: str, u: Tensor, weight: Tensor) -> str | None:
    """Say why a backend cannot convolve u, to go behind its name; None where it can."""
    reason = None if name == "torch" else cannot_run(u, name)
    d, taps = weight.shape[-2:]
    if reason is None and name == "causal_conv1d" and not (2 <= taps <= 4 and d % 8 == 0):
        return f"takes 2 to 4 taps and a width in whole eights, not {taps} and {d}"
    return reason


def _causal_conv1d(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """By Dao-AILab/causal-conv1d (causal_conv1d_interface.py), each direction by itself."""
    from causal_conv1d import causal_conv1d_fn

    with torch.autocast(u.device.type, enabled=False):
        outputs = [
            # The package takes (b, d, l), and reads rows in whole eights.
            causal_conv1d_fn(x.contiguous().mT, w.float(), shift.float(), activation="silu").mT
            for x, w, shift in zip(scanning_order(u, reverse), weight, bias, strict=True)
        ]
    return laid_out_as(u, scanning_order(torch.stack(outputs), reverse))


def _plain(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """In PyTorch's own functions, in float32 at least: the channels of all directions at once."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        x = scanning_order(u.to(dtype), reverse).permute(1, 0, 3, 2).flatten(1, 2)  # (b, r d, l)
        x = F.pad(x, (weight.shape[2] - 1, 0))
        kernel, shift = weight.to(dtype).flatten(0, 1)[:, None], bias.to(dtype).flatten()
        y = F.silu(F.conv1d(x, kernel, shift, groups=len(shift)))
        y = y.unflatten(1, (len(u), -1)).permute(1, 0, 3, 2)
    return laid_out_as(u, scanning_order(y, reverse))


# Backends that are functions with a gradient of their own.
_FUNCTIONS = {"torch": _plain, "causal_conv1d": _causal_conv1d}
