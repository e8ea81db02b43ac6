"""Every backend's forward and backward as a `torch.library` operator.

As operators they are opaque to autocast and `torch.compile`, and a selective-checkpoint policy can
name them. All backends share one schema; what differs is the function behind it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bsbimamba.scan import chunked, mamba_ssm
from bsbimamba.scan.cpu import launch as cpu
from bsbimamba.scan.interface import AS_U, Backend, Inputs, Options, Upstream, borders, finished
from bsbimamba.scan.layout import empty_as, laid_out_as
from bsbimamba.scan.triton import launch as triton

_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state"
)
_OPTIONS = "bool delta_softplus, bool reverse, SymInt chunk_size, bool want_last"


def _make_operators(
    name: str, backend: Backend, room: Callable[[Inputs, Options], Tensor] = borders
) -> tuple[Callable, Callable]:
    """Register `bsbimamba::scan_<name>`, which is differentiable, and its backward; return both.

    The first takes what is in `Inputs` and `Options`, one by one, and returns what
    `Backend.forward` does. The second takes the gradients of output and last state, the inputs,
    what the forward pass kept, the options and `want_out`. `room` returns a tensor with shape and
    dtype of what is kept.
    """

    def scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[9:])
        with torch.autocast(inputs.u.device.type, enabled=False):
            out, last, kept = backend.forward(inputs, options)
        last = last[:, :, : inputs.u.shape[3]] if options.want_last else last.new_empty(0)
        last = last.to(inputs.compute_dtype).contiguous()
        return laid_out_as(inputs.u, out), last, kept

    def scan_backward(grad_out: Tensor, grad_last: Tensor | None, *arguments: Any) -> list[Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[10:14])
        upstream = Upstream(grad_out, grad_last, want_out=arguments[14])
        # Whoever calls backward() inside autocast still gets gradients in full precision.
        with torch.autocast(inputs.u.device.type, enabled=False):
            gradients = backend.backward(upstream, inputs, arguments[9], options)
            return finished(gradients, inputs, upstream.want_out)

    forward_operator = torch.library.custom_op(
        f"bsbimamba::scan_{name}",
        scan,
        mutates_args=(),
        schema=f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    )
    backward_operator = torch.library.custom_op(
        f"bsbimamba::scan_{name}_backward",
        scan_backward,
        mutates_args=(),
        schema=f"(Tensor grad_out, Tensor? grad_last, {_INPUTS}, Tensor kept, {_OPTIONS}, "
        "bool want_out) -> Tensor[]",
    )

    @forward_operator.register_fake
    def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[9:])
        r, b, _, d = inputs.u.shape
        state = (r, b, d, inputs.A.shape[2]) if options.want_last else (0,)
        last = inputs.u.new_empty(state, dtype=inputs.compute_dtype)
        return empty_as(inputs.u), last, room(inputs, options)

    @backward_operator.register_fake
    def _(grad_out: Tensor, grad_last: Tensor | None, *arguments: Any) -> list[Tensor]:
        inputs, want_out = Inputs(*arguments[:9]), arguments[-1]
        u = inputs.u
        gradients = inputs.map(
            lambda name, x: empty_as(u, x.dtype) if name in AS_U else x.new_empty(x.shape)
        )
        found = [*gradients, empty_as(u) if want_out else None]
        return [u.new_empty(0) if x is None else x for x in found]

    @register_flop_formula(getattr(torch.ops.bsbimamba, f"scan_{name}"))
    def _(u: Any, delta: Any, A: Any, *arguments: Any, **keywords: Any) -> int:
        # Shapes. Three multiply-accumulates in each state: the decay, the input, the output.
        return 2 * 3 * u[1] * u[2] * math.prod(A)

    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.options = inputs[9:]
        ctx.save_for_backward(*inputs[:9], output[2])

    def backward_pass(
        ctx: Any, grad_out: Tensor, grad_last: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        of_last = grad_last if Options(*ctx.options).want_last else None
        grads = backward_operator(grad_out, of_last, *saved, *ctx.options, False)
        wanted = (
            grad if x is not None and needed else None
            for grad, x, needed in zip(grads, saved, ctx.needs_input_grad, strict=False)
        )
        return *wanted, *[None] * len(ctx.options)

    forward_operator.register_autograd(backward_pass, setup_context=setup_context)
    return forward_operator, backward_operator


OPERATORS = {
    "chunked": _make_operators("chunked", chunked.BACKEND),
    "cpu": _make_operators("cpu", cpu),
    "triton": _make_operators("triton", triton),
    "mamba_ssm": _make_operators("mamba_ssm", mamba_ssm.BACKEND, mamba_ssm.nothing_kept),
}
