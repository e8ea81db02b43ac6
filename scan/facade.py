"""`selective_scan`: checks its arguments, chooses the backend, and hides how it works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from scan import chunked, cpu
from scan.interface import Inputs, Options
from scan.operators import make_operator
from scan.reference import selective_scan_reference

log = logging.getLogger("scan")

_OPERATORS: dict[str, Callable] = {
    "chunked": make_operator("chunked", chunked),
    "cpu": make_operator("cpu", cpu),
}
BACKENDS = ("reference", *_OPERATORS)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan a sequence with a selective state-space model (Gu and Dao, "Mamba", 2023, section 3.2).

        h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t,    out_t = y_t silu(z_t)

    with Δ = delta + delta_bias, through softplus if `delta_softplus`.

    Args:
        u, delta: input and step sizes (b, l, d).
        A: (d, n), negative for a decaying state. B, C: (b, l, n).
        D: skip weights (d). z: gate (b, l, d). delta_bias: (d).
        reverse: scan from right to left; no flipped copy of the sequence is made.
        initial_state: state (b, d, n) before the first step scanned; zero where absent.
        return_last_state: also return the state (b, d, n) after the last step scanned, with which
            a next piece of the sequence continues.
        chunk_size: the backward pass keeps one state in `chunk_size` steps and recomputes the rest.
        backend: one of `BACKENDS`, or "auto": "cpu" for tensors on a CPU, otherwise "chunked".

    Returns:
        The output (b, l, d) in u's dtype. Float64 is computed in float64 ("cpu" cannot), all else
        in float32, also under autocast.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit, or the backend cannot run.
    """
    inputs = Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    options = Options(delta_softplus, reverse, chunk_size)
    _check(inputs, options)
    name = _choose(backend, u)
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        cast = Inputs(*(None if x is None else x.to(dtype) for x in inputs))  # type: ignore[arg-type]
        if u.numel() == 0:
            out = u.clone()
            last = u.new_zeros(len(u), *A.shape, dtype=dtype)
            if cast.initial_state is not None:
                last = last + cast.initial_state
        elif name == "reference":
            out, last = selective_scan_reference(cast, options)
        else:
            out, last, _ = _OPERATORS[name](*cast, *options)
    out = out.to(u.dtype)
    return (out, last) if return_last_state else out


def _choose(backend: str, u: Tensor) -> str:
    single = u.dtype != torch.float64
    if backend == "auto":
        name = "cpu" if u.device.type == "cpu" and single else "chunked"
        _announce(name, u.device.type)
        return name
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}, auto")
    if backend == "cpu" and not (u.device.type == "cpu" and single):
        raise ValueError(
            f"backend 'cpu' computes in float32 on a CPU; u is {u.dtype} on {u.device}. "
            "Use backend='chunked' or 'auto'."
        )
    return backend


@cache
def _announce(name: str, device: str) -> None:
    log.info("selective scan on %s: backend %s", device, name)


def _check(inputs: Inputs, options: Options) -> None:
    u, A = inputs.u, inputs.A
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, length, width), but its shape is {tuple(u.shape)}")
    if A.dim() != 2:
        raise ValueError(f"A must be (width, state), but its shape is {tuple(A.shape)}")
    b, length, d = u.shape
    n = A.shape[1]
    whole, states, width = (b, length, d), (b, length, n), (d,)
    shapes = (whole, whole, (d, n), states, states, width, whole, width, (b, d, n))
    for name, x, shape in zip(Inputs._fields, inputs, shapes, strict=True):
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}, expected {shape} for u and A as given"
            )
        if not x.is_floating_point():
            raise ValueError(f"{name} has dtype {x.dtype}, expected a real floating-point one")
        if x.device != u.device:
            raise ValueError(f"{name} is on {x.device}, expected {u.device}, where u is")
    if options.chunk_size < 1:
        raise ValueError(f"chunk_size is {options.chunk_size}, expected at least 1")
