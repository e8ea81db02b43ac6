"""Every backend's forward and backward as a `torch.library` operator.

As operators they are opaque to autocast and `torch.compile`, and a selective-checkpoint policy can
name them. All backends share one schema; what differs is the function behind it.
"""

# No postponed annotations here: torch reads the schema of an operator from them.

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

NAMESPACE = "bsbimamba"


def make_operator(name: str, forward: Callable, backward: Callable) -> Callable:
    """Register `bsbimamba::scan_<name>` and its backward; return the differentiable operator.

    forward and backward are a backend's functions of those names (see `scan.chunked`). The
    operator takes forward's arguments and returns (output, last state, border states); the first
    two are differentiable.
    """

    @torch.library.custom_op(f"{NAMESPACE}::scan_{name}", mutates_args=())
    def scan(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return forward(
            u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, reverse, chunk_size
        )

    @scan.register_fake
    def _(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        b, length, d = u.shape
        n = A.shape[1]
        borders = (length - 1) // chunk_size
        return u.new_empty(b, length, d), u.new_empty(b, d, n), u.new_empty(b, borders, n, d)

    @torch.library.custom_op(f"{NAMESPACE}::scan_{name}_backward", mutates_args=())
    def scan_backward(
        grad_out: Tensor,
        grad_last: Tensor | None,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        borders: Tensor,
        delta_softplus: bool,
        reverse: bool,
        chunk_size: int,
    ) -> list[Tensor]:
        return list(
            backward(
                grad_out, grad_last, u, delta, A, B, C, D, z, delta_bias, initial_state, borders,
                delta_softplus, reverse, chunk_size,
            )
        )  # fmt: skip

    @scan_backward.register_fake
    def _(grad_out: Tensor, grad_last: Tensor | None, *args: Any) -> list[Tensor]:
        return [
            grad_out.new_empty(0)
            if x is None
            else torch.empty_like(x, memory_format=torch.contiguous_format)
            for x in args[:9]
        ]

    @register_flop_formula(getattr(getattr(torch.ops, NAMESPACE), f"scan_{name}"))
    def _(u: Any, delta: Any, A: Any, *args: Any, **kwargs: Any) -> int:
        # Shapes. Three multiply-accumulates in each state: the decay, the input, the output.
        return 2 * 3 * u[0] * u[1] * A[0] * A[1]

    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.delta_softplus, ctx.reverse, ctx.chunk_size = inputs
        ctx.save_for_backward(*tensors, output[2])
        ctx.set_materialize_grads(False)

    def backward_pass(
        ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if grad_out is None:
            grad_out = torch.zeros_like(saved[0])
        grads = scan_backward(
            grad_out, grad_last, *saved, ctx.delta_softplus, ctx.reverse, ctx.chunk_size
        )
        wanted = (
            grad if x is not None and needed else None
            for grad, x, needed in zip(grads, saved, ctx.needs_input_grad, strict=False)
        )
        return *wanted, None, None, None

    scan.register_autograd(backward_pass, setup_context=setup_context)
    return scan
