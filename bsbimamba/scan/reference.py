"""The selective scan written as its definition: the oracle that every backend is compared with.

One Python iteration per time step and autograd for the gradients, in the dtype of its inputs
(float64 in the tests). Slow, and never chosen by `backend="auto"`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.scan.interface import ByDirection, Inputs, Options, by_autograd


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Scan one direction, see `scan.interface.ByDirection`; keep nothing.

    Gu and Dao, "Mamba", 2023, equations 2a, 2b and 4 (A by zero-order hold, B by Euler's rule).
    """
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs.computing()
    if delta_bias is not None:
        delta = delta + delta_bias
    if options.delta_softplus:
        # F.softplus goes over to the identity at 20; this is exact on both sides of it.
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    if initial_state is None:
        state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    else:
        state = initial_state
    outputs = []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * F.silu(z)
    return y, state, y.new_empty(0)


def backward(
    grad_out: Tensor, grad_last: Tensor | None, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """Compute all of it again and differentiate that, without the last state's gradient."""
    return by_autograd(lambda leaves: forward(leaves, options)[0], inputs, grad_out)


BACKEND = ByDirection(forward, backward)
