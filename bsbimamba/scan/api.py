"""`selective_scan`, both directions at once, and the two passes one by one for `recompute`."""

import torch
from torch import Tensor

from bsbimamba.scan import reference
from bsbimamba.scan.dispatch import choose
from bsbimamba.scan.interface import Inputs, Options, Upstream, check_arguments, finished
from bsbimamba.scan.layout import laid_out_as
from bsbimamba.scan.operators import OPERATORS


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
            (`scan.dispatch`), which the environment variable BSBIMAMBA_SCAN can name instead.

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
    check_arguments(inputs, options, directions=False)
    out, last = _scan(inputs.map(lambda _, x: x[None]), options, backend)
    return (out[0], last[0]) if return_last_state else out[0]


def scan_directions(
    *,
    delta_softplus: bool = False,
    reverse: bool = False,
    chunk_size: int = 64,
    backend: str = "auto",
    **tensors: Tensor | None,
) -> Tensor:
    """Scan once, or twice at once in opposite directions: on a GPU in a single launch.

    The arguments of `selective_scan`, without states, with a dimension of r = 1 or 2 in front: u,
    delta, z (r, b, l, d); A (r, d, n); B, C (r, b, l, n); D, delta_bias (r, d). `reverse` is the
    direction of the first; the second has values of its own and runs the other way. Returns
    (r, b, l, d) and raises the same.
    """
    inputs = Inputs(**tensors)  # type: ignore[arg-type]
    options = Options(delta_softplus, reverse, chunk_size, want_last=False)
    check_arguments(inputs, options, directions=True)
    return _scan(inputs, options, backend)[0]


def scan_forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    """Return the output (r, b, l, d), in the order of memory of u, and what `scan_backward` needs.

    For backward passes that are written by hand: nothing is checked, and autograd sees nothing.
    """
    out, _, kept = _forward(inputs, options, "auto")
    return out, kept


def scan_backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> tuple[Inputs, Tensor]:
    """Return the gradient of each input, of size 0 for an absent one, and the output again."""
    name, inputs, options = _prepared(inputs, options, "auto")
    if name == "reference":
        found = reference.BACKEND.backward(upstream, inputs, kept, options)
        *gradients, out = finished(found, inputs, upstream.want_out)
    else:
        _, operator = OPERATORS[name]
        grad_out, grad_last, want_out = upstream
        *gradients, out = operator(grad_out, grad_last, *inputs, kept, *options, want_out)
    return Inputs(*gradients), out


def _scan(inputs: Inputs, options: Options, backend: str) -> tuple[Tensor, Tensor]:
    """Return the outputs and last states of all directions."""
    u, A, initial = inputs.u, inputs.A, inputs.initial_state
    if u.numel() == 0:
        last = A.new_zeros(*u.shape[:2], *A.shape[1:], dtype=inputs.compute_dtype)
        return u.clone(), last if initial is None else last + initial
    out, last, _ = _forward(inputs, options, backend)
    return out.to(u.dtype), last


def _forward(inputs: Inputs, options: Options, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs, last states and what the backward pass needs."""
    name, inputs, options = _prepared(inputs, options, backend)
    if name == "reference":
        with torch.autocast(inputs.u.device.type, enabled=False):
            out, last, kept = reference.BACKEND.forward(inputs, options)
        return laid_out_as(inputs.u, out), last, kept
    if torch.autograd.forward_ad._current_level >= 0:  # derivatives would come out as 0
        raise NotImplementedError(
            "this backend has no forward-mode derivative (jvp, jacfwd, make_dual). "
            "Use reverse mode, or backend='reference'."
        )
    operator, _ = OPERATORS[name]
    return operator(*inputs, *options)


def _prepared(inputs: Inputs, options: Options, backend: str) -> tuple[str, Inputs, Options]:
    """Return the backend, inputs and options as it takes them; see `choose` for the errors."""
    name = choose(backend, inputs, options.want_last)
    options = options._replace(chunk_size=min(options.chunk_size, inputs.u.shape[2]))
    if any(x is not None and x.dtype == torch.float64 for x in inputs):
        inputs = inputs.computing()
    return name, inputs, options
