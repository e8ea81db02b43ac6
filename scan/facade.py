"""`selective_scan`: checks its arguments, chooses the backend, and hides how it works."""

from __future__ import annotations

import torch
from torch import Tensor

from scan.interface import Inputs, Options, check_tensor, refuse_forward_mode
from scan.passes import OPERATORS, prepared
from scan.reference import scan_reference


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
        backend: one of `scan.BACKENDS`, or "auto" for the fastest that can scan these tensors
            (`scan.choice`), which the environment variable BSBIMAMBA_SCAN can name instead.

    Returns:
        The output (b, l, d) in u's dtype, and the state in float32. Where u is float64 all is
        computed in float64 ("reference" and "chunked" can), otherwise in float32, also under
        autocast. Gradients have the dtypes of the arguments; they cannot be differentiated again
        (but for "reference").

    Raises:
        ValueError: an argument's shape, dtype or device does not fit, or the backend cannot run.
    """
    inputs = Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    options = Options(delta_softplus, reverse, chunk_size, return_last_state)
    _check(inputs, options)
    stacked = Inputs(*(None if x is None else x[None] for x in inputs))  # type: ignore[arg-type]
    out, last = _scan(stacked, options, backend)
    return (out[0], last[0]) if return_last_state else out[0]


def scan_directions(
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
    chunk_size: int = 64,
    backend: str = "auto",
) -> Tensor:
    """One scan, or two at once that run in opposite directions: on a GPU in a single launch.

    The arguments of `selective_scan` with a dimension of r = 1 or 2 in front: u, delta, z
    (r, b, l, d); A (r, d, n); B, C (r, b, l, n); D, delta_bias (r, d). `reverse` is the direction
    of the first; the second has values of its own and runs the other way. Returns (r, b, l, d) and
    raises the same.
    """
    inputs = Inputs(u, delta, A, B, C, D, z, delta_bias, None)
    options = Options(delta_softplus, reverse, chunk_size, want_last=False)
    if not isinstance(u, Tensor) or u.dim() != 4 or len(u) not in (1, 2):
        raise ValueError(
            "u must be (1 or 2, batch, length, width), "
            f"but its shape is {tuple(getattr(u, 'shape', ()))}"
        )
    _check(inputs, options, lead=(len(u),))
    return _scan(inputs, options, backend)[0]


def _scan(inputs: Inputs, options: Options, backend: str) -> tuple[Tensor, Tensor]:
    """The outputs and last states of all directions."""
    u = inputs.u
    name, inputs, options = prepared(inputs, options, backend)
    A, initial = inputs.A, inputs.initial_state
    if u.numel() == 0:
        last = A.new_zeros(*u.shape[:2], *A.shape[1:], dtype=inputs.compute_dtype)
        return u.clone(), last if initial is None else last + initial
    if name == "reference":
        with torch.autocast(u.device.type, enabled=False):
            out, last = scan_reference(inputs, options)
    else:
        refuse_forward_mode()
        out, last, _ = OPERATORS[name](*inputs, *options)
    return out.to(u.dtype), last


def _check(inputs: Inputs, options: Options, lead: tuple[int, ...] = ()) -> None:
    u, A = inputs.u, inputs.A
    for name, x in zip(Inputs._fields, inputs, strict=True):
        if x is not None or name in ("u", "delta", "A", "B", "C"):
            check_tensor(name, x, getattr(u, "device", torch.device("cpu")))
    for name, given, dims in (("u", u, "batch, length, width"), ("A", A, "width, state")):
        expected = "".join(f"{size}, " for size in lead) + dims
        if given.dim() != expected.count(",") + 1 or given.shape[: len(lead)] != lead:
            raise ValueError(f"{name} must be ({expected}), but its shape is {tuple(given.shape)}")
    b, length, d = u.shape[-3:]
    n = A.shape[-1]
    whole, states, width = (*lead, b, length, d), (*lead, b, length, n), (*lead, d)
    shapes = (whole, whole, (*width, n), states, states, width, whole, width, (*lead, b, d, n))
    for name, x, shape in zip(Inputs._fields, inputs, shapes, strict=True):
        if x is not None and x.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}, expected {shape} for u and A as given"
            )
    if n < 1:
        raise ValueError(f"A has shape {tuple(A.shape)}, expected at least one state")
    if not isinstance(options.chunk_size, int) or options.chunk_size < 1:
        raise ValueError(
            f"chunk_size is {options.chunk_size!r}, expected a whole number of at least 1"
        )
