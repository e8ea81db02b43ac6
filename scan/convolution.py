"""`causal_conv_silu`: Mamba's short convolution and the SiLU behind it, as one operator.

The backends: numba kernels on a CPU, which take less than half of PyTorch's time; Triton kernels on
a GPU; PyTorch for all else.
"""

# No postponed annotations here: torch reads the schema of an operator from them.

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from scan.cpu import launch as cpu
from scan.dispatch import cannot_run
from scan.interface import check_arguments, refuse_forward_mode
from scan.layout import empty_as, laid_out_as, scanning_order
from scan.triton import launch as triton

# In the order of preference.
BACKENDS = ("cpu", "triton", "torch")
_AXES = {"u": "bld", "weight": "dk", "bias": "d"}


class Backend(Protocol):
    """What a backend takes: u (r, b, l, d), weight (r, d, taps), bias (r, d), of any strides and
    float dtypes."""

    def convolution_forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        """The output (r, b, l, d) in any float dtype."""

    def convolution_backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        """The gradients of u, weight and bias in any float dtype."""


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
    single = not isinstance(u, Tensor) or u.dim() == 3
    check_arguments({"u": u, "weight": weight, "bias": bias}, _AXES, directions=not single)
    if weight.shape[-1] < 1:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected at least one tap")
    if single:
        u, weight, bias = u[None], weight[None], bias[None]
    name = _choose(backend, u)
    refuse_forward_mode()
    out = conv_silu(u, weight, bias, reverse, name) if u.numel() else u.clone()
    return out[0] if single else out


@torch.library.custom_op("bsbimamba::conv_silu", mutates_args=())
def conv_silu(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool, backend: str) -> Tensor:
    with torch.autocast(u.device.type, enabled=False):
        return laid_out_as(u, _ALL[backend].convolution_forward(u, weight, bias, reverse))


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
        grads = _ALL[backend].convolution_backward(grad_out, u, weight, bias, reverse)
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
    return torch.ops.bsbimamba.conv_silu(u, weight, bias, reverse, _choose("auto", u))


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of u, weight and bias."""
    name = _choose("auto", u)
    du, dweight, dbias = torch.ops.bsbimamba.conv_silu_backward(
        grad_out, u, weight, bias, reverse, name
    )
    return du, dweight, dbias


def _choose(backend: str, u: Tensor) -> str:
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}, auto")
    for name in BACKENDS if backend == "auto" else (backend,):
        packages = ("triton",) if name == "triton" else ()
        reason = None if name == "torch" else cannot_run(u, name, packages)
        if reason is None:
            return name
    raise ValueError(f"backend {backend!r} {reason}. Use 'torch' or 'auto'.")


class _Torch:
    """Depthwise convolution over both directions' channels, in scanning order.

    As a two-dimensional one of a channels-last view it needs no transposed copy and is several
    times faster on a CPU than conv1d.
    """

    def convolution_forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        y = F.silu(F.conv2d(*self._arguments(u, weight, bias, reverse), groups=bias.numel()))
        return self._back(y, u, reverse)

    def convolution_backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        image, kernel, shift = self._arguments(u, weight, bias, reverse)
        y = F.conv2d(image, kernel, shift, groups=bias.numel())
        grad = torch.ops.aten.silu_backward(self._image(grad_out.to(y.dtype), reverse), y)
        whole = [1, 1], [0, 0], [1, 1], False, [0, 0]  # stride, padding, dilation, transposed
        dx, dweight, dbias = torch.ops.aten.convolution_backward(
            grad, image, kernel, [bias.numel()], *whole, bias.numel(), [True] * 3
        )
        dx = dx[..., weight.shape[2] - 1 :]
        return [self._back(dx, u, reverse), dweight.view_as(weight), dbias.view_as(bias)]

    def _arguments(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> tuple:
        """u as (b, r d, 1, taps - 1 + l), the weight as (r d, 1, 1, taps), the bias as (r d)."""
        dtype = torch.promote_types(u.dtype, torch.float32)
        image = F.pad(self._image(u.to(dtype), reverse), (weight.shape[2] - 1, 0))
        return image, weight.to(dtype).flatten(0, 1)[:, None, None], bias.to(dtype).flatten()

    def _image(self, x: Tensor, reverse: bool) -> Tensor:
        """(r, b, l, d) to (b, r d, 1, l)."""
        return scanning_order(x, reverse).permute(1, 0, 3, 2).flatten(1, 2)[:, :, None]

    def _back(self, x: Tensor, u: Tensor, reverse: bool) -> Tensor:
        """The inverse of `_image`."""
        x = x[:, :, 0].unflatten(1, (len(u), -1)).permute(1, 0, 3, 2)
        return scanning_order(x, reverse)


_ALL: dict[str, Backend] = {"cpu": cpu, "triton": triton, "torch": _Torch()}
