"""The passes of the scan one by one, for backward passes that are written by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scan import chunked, cpu, gpu, mamba_adapter, reference
from scan.choice import choose
from scan.interface import Inputs, Options
from scan.operators import NAMESPACE, make_operator

OPERATORS: dict[str, Callable] = {
    "chunked": make_operator("chunked", chunked),
    "cpu": make_operator("cpu", cpu),
    "triton": make_operator("triton", gpu),
    "mamba_ssm": make_operator("mamba_ssm", mamba_adapter, mamba_adapter.kept),
}


def prepared(inputs: Inputs, options: Options, backend: str) -> tuple[str, Inputs, Options]:
    """The backend for these inputs, and they as it takes them.

    Raises:
        ValueError: `backend` cannot scan them.
    """
    name = choose(backend, inputs, options.want_last)
    options = options._replace(chunk_size=min(options.chunk_size, max(inputs.u.shape[2], 1)))
    if any(x is not None and x.dtype == torch.float64 for x in inputs):
        dtype = inputs.compute_dtype
        inputs = Inputs(*(None if x is None else x.to(dtype) for x in inputs))  # type: ignore[arg-type]
    return name, inputs, options


def scan_forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """The output (r, b, l, d), in the order of memory of u, and what `scan_backward` needs."""
    name, inputs, options = prepared(inputs, options, "auto")
    if name == "reference":
        return reference.forward(inputs, options)
    out, _, kept = getattr(_operators(), f"scan_{name}")(*inputs, *options)
    return out, kept


def scan_backward(
    grad_out: Tensor, inputs: Inputs, kept: Tensor, options: Options, want_out: bool
) -> tuple[Inputs, Tensor]:
    """The gradient of each input, of size 0 for an absent one, and the output again if wanted."""
    name, inputs, options = prepared(inputs, options, "auto")
    if name == "reference":
        return reference.backward(grad_out, inputs, options)
    operator = getattr(_operators(), f"scan_{name}_backward")
    *gradients, out = operator(grad_out, None, *inputs, kept, *options, want_out)
    return Inputs(*gradients), out


def _operators() -> object:
    return getattr(torch.ops, NAMESPACE)
