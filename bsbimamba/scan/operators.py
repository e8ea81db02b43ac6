"""Every backend's forward and backward as a `torch.library` operator.

As operators they are opaque to autocast and `torch.compile`, and a selective-checkpoint policy can
name them. All backends share one schema; what differs is the function behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bsbimamba.scan import chunked, mamba_ssm
from bsbimamba.scan.cpu import launch as cpu
from bsbimamba.scan.interface import AS_U, Backend, Inputs, Options, borders
from bsbimamba.scan.layout import empty_as
from bsbimamba.scan.triton import launch as triton

NAMESPACE = "bsbimamba"
_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state"
)
_OPTIONS = "bool delta_softplus, bool reverse, SymInt chunk_size, bool want_last"


def _make_operator(name: str, backend: Backend, kept: Callable = borders) -> Callable:
    """Register `bsbimamba::scan_<name>` and its backward; return the differentiable operator.

    `kept(inputs, options)` has shape and dtype of what the backend keeps for its backward pass.

    It takes what is in `Inputs` and `Options`, one by one, and returns what `Backend.forward` does;
    the output and the last state are differentiable.
    """
    forward_schema = f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor, Tensor)"
    backward_schema = (
        f"(Tensor grad_out, Tensor? grad_last, {_INPUTS}, Tensor borders, {_OPTIONS}, "
        "bool want_out) -> Tensor[]"
    )

    @torch.library.custom_op(f"{NAMESPACE}::scan_{name}", mutates_args=(), schema=forward_schema)
    def scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[9:])
        with torch.autocast(inputs.u.device.type, enabled=False):
            return backend.forward(inputs, options)

    @scan.register_fake
    def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[9:])
        r, b, _, d = inputs.u.shape
        state = (r, b, d, inputs.A.shape[2]) if options.want_last else (0,)
        last = inputs.u.new_empty(state, dtype=inputs.compute_dtype)
        return empty_as(inputs.u), last, kept(inputs, options)

    @torch.library.custom_op(
        f"{NAMESPACE}::scan_{name}_backward", mutates_args=(), schema=backward_schema
    )
    def scan_backward(grad_out: Tensor, grad_last: Tensor | None, *arguments: Any) -> list[Tensor]:
        inputs, options = Inputs(*arguments[:9]), Options(*arguments[10:14])
        # Whoever calls backward() inside autocast still gets gradients in full precision.
        with torch.autocast(inputs.u.device.type, enabled=False):
            return backend.backward(
                grad_out, grad_last, inputs, arguments[9], options, arguments[14]
            )

    @scan_backward.register_fake
    def _(grad_out: Tensor, grad_last: Tensor | None, *arguments: Any) -> list[Tensor]:
        inputs, want_out = Inputs(*arguments[:9]), arguments[-1]
        u = inputs.u
        gradients = [
            u.new_empty(0)
            if x is None
            else empty_as(u, x.dtype)
            if name in AS_U
            else x.new_empty(x.shape)
            for name, x in zip(Inputs._fields, inputs, strict=True)
        ]
        return [*gradients, empty_as(u) if want_out else u.new_empty(0)]

    @register_flop_formula(getattr(getattr(torch.ops, NAMESPACE), f"scan_{name}"))
    def _(u: Any, delta: Any, A: Any, *arguments: Any, **keywords: Any) -> int:
        # Shapes. Three multiply-accumulates in each state: the decay, the input, the output.
        return 2 * 3 * u[1] * u[2] * math.prod(A)

    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.options = inputs[9:]
        ctx.save_for_backward(*inputs[:9], output[2])
        ctx.set_materialize_grads(False)

    def backward_pass(
        ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if not Options(*ctx.options).want_last:
            grad_last = None  # tracing makes one up for the tensor of size 0
        if grad_out is None:
            grad_out = torch.zeros(saved[0].shape, dtype=saved[0].dtype, device=saved[0].device)
        grads = scan_backward(grad_out, grad_last, *saved, *ctx.options, False)
        wanted = (
            grad if x is not None and needed else None
            for grad, x, needed in zip(grads, saved, ctx.needs_input_grad, strict=False)
        )
        return *wanted, None, None, None, None

    scan.register_autograd(backward_pass, setup_context=setup_context)
    return scan


OPERATORS: dict[str, Callable] = {
    "chunked": _make_operator("chunked", chunked),
    "cpu": _make_operator("cpu", cpu),
    "triton": _make_operator("triton", triton),
    "mamba_ssm": _make_operator("mamba_ssm", mamba_ssm, mamba_ssm.kept),
}
