"""`causal_conv_silu`: Mamba's short convolution and the SiLU behind it, as one operator.

The backends: numba kernels on a CPU, which take less than half of PyTorch's time; on a GPU the
package causal-conv1d where it is installed, otherwise Triton kernels; PyTorch for all else.
"""

# No postponed annotations here: torch reads the schema of an operator from them.

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from scan import convolution_backends as backends
from scan.arrays import empty_as, laid_out_as
from scan.choice import cannot_run
from scan.interface import check_tensor, refuse_forward_mode

BACKENDS = tuple(backends.ALL)


def causal_conv_silu(
    u: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False, backend: str = "auto"
) -> Tensor:
    """silu of the depthwise convolution over l of u, looking back (ahead, if reversed).

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
    _check(u, weight, bias)
    single = u.dim() == 3
    if single:
        u, weight, bias = u[None], weight[None], bias[None]
    name = _choose(backend, u, weight)
    refuse_forward_mode()
    out = conv_silu(u, weight, bias, reverse, name) if u.numel() else u.clone()
    return out[0] if single else out


@torch.library.custom_op("bsbimamba::conv_silu", mutates_args=())
def conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str) -> Tensor:
    with torch.autocast(u.device.type, enabled=False):
        return laid_out_as(u, backends.ALL[backend].forward(u, weight, bias, reverse))


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
        grads = backends.ALL[backend].backward(grad_out, u, weight, bias, reverse)
    others = (
        grad.to(x.dtype).contiguous() for grad, x in zip(grads[1:], (weight, bias), strict=True)
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
    """`causal_conv_silu` of (r, b, l, d) without its gradient, for backward passes by hand."""
    return torch.ops.bsbimamba.conv_silu(u, weight, bias, reverse, _choose("auto", u, weight))


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of u, weight and bias."""
    name = _choose("auto", u, weight)
    du, dweight, dbias = torch.ops.bsbimamba.conv_silu_backward(
        grad_out, u, weight, bias, reverse, name
    )
    return du, dweight, dbias


def _choose(backend: str, u: Tensor, weight: Tensor) -> str:
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}, auto")
    order = ("cpu", "causal_conv1d", "triton", "torch") if backend == "auto" else (backend,)
    for name in order:
        reason = _why_not(name, u, weight)
        if reason is None:
            return name
    raise ValueError(f"backend {backend!r} {reason}. Use 'torch' or 'auto'.")


def _why_not(name: str, u: Tensor, weight: Tensor) -> str | None:
    """Why a backend cannot convolve u, to go behind its name; None where it can."""
    if name == "torch":
        return None
    d, taps = weight.shape[1:]
    reason = cannot_run(u, name)
    if reason is None and name == "causal_conv1d" and not (2 <= taps <= 4 and d % 8 == 0):
        return f"takes 2 to 4 taps and a width in whole eights, not {taps} and {d}"
    return reason


def _check(u: Tensor, weight: Tensor, bias: Tensor) -> None:
    for name, x in (("u", u), ("weight", weight), ("bias", bias)):
        check_tensor(name, x, getattr(u, "device", torch.device("cpu")))
    lead = tuple(u.shape[:1]) if u.dim() == 4 else ()
    if u.dim() not in (3, 4) or lead not in ((), (1,), (2,)):
        raise ValueError(
            "u must be (batch, length, width) or (1 or 2, batch, length, width), "
            f"but its shape is {tuple(u.shape)}"
        )
    d = u.shape[-1]
    whole = weight.dim() == len(lead) + 2 and weight.shape[-1] > 0
    if not whole or tuple(weight.shape[:-1]) != (*lead, d):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected {(*lead, d)} and taps")
    if tuple(bias.shape) != (*lead, d):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected {(*lead, d)}")
