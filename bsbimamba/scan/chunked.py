"""The selective scan in plain PyTorch, for any device and dtype.

The sequence is cut into chunks. Inside a chunk the recurrence is solved by doubling (an associative
scan: after k rounds each position has absorbed the 2^k before it), which never divides by a decay
and so cannot overflow. From chunk to chunk only the state is handed on, and it is all that the
backward pass keeps: it recomputes each chunk from the state at its border, and its own recurrence
is solved by the same doubling, run from right to left.

Memory: O(b l d + b n d l / chunk) kept, O(b chunk d n) in passing.
"""

import math

import torch
from torch import Tensor

from bsbimamba.scan.interface import ByDirection, Inputs, Options


def _accumulate(decay: Tensor, value: Tensor) -> Tensor:
    """Solve h_t = decay_t h_{t-1} + value_t along dim 1, h_{-1} = 0; overwrites its arguments."""
    reach = 1
    while reach < value.shape[1]:
        value[:, reach:] += decay[:, reach:] * value[:, :-reach]
        decay[:, reach:] = decay[:, reach:] * decay[:, :-reach]
        reach *= 2
    return value


def _step_sizes(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    if delta_bias is not None:
        delta = delta + delta_bias
    return torch.logaddexp(delta, torch.zeros_like(delta)) if delta_softplus else delta


def _states(step: Tensor, u: Tensor, A: Tensor, B: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of one chunk in scanning order, both (b, chunk, d, n)."""
    # Of a decay that overflows only so much that a state of zero stays at zero.
    decay = torch.exp((step[..., None] * A).clamp(max=math.log(torch.finfo(A.dtype).max) - 1))
    value = (step * u)[..., None] * B[:, :, None, :]
    value[:, 0] += decay[:, 0] * before
    return decay, _accumulate(decay.clone(), value)


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Scan one direction, see `scan.interface.ByDirection`."""
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs.computing()
    step = _step_sizes(delta, delta_bias, options.delta_softplus)
    state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])
    if initial_state is not None:
        state = state + initial_state
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    kept = u.new_empty(len(u), (u.shape[1] - 1) // options.chunk_size, *A.mT.shape)
    for start in range(0, u.shape[1], options.chunk_size):
        part = slice(start, start + options.chunk_size)
        if start > 0:
            kept[:, start // options.chunk_size - 1] = state.mT
        step_, u_, B_, C_ = (x[:, part].contiguous() for x in (step, u, B, C))
        _, states = _states(step_, u_, A, B_, state)
        out[:, part] = torch.einsum("bcdn,bcn->bcd", states, C_)
        state = states[:, -1].clone()
    if D is not None:
        out += D * u
    if z is not None:
        out *= torch.nn.functional.silu(z)
    return out, state, kept


def backward(
    grad_out: Tensor, grad_last: Tensor | None, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """Return the gradients in the order of `Inputs`, and the output."""
    u, delta, A, B, C, D, z, delta_bias, initial_state = inputs.computing()
    step = _step_sizes(delta, delta_bias, options.delta_softplus)
    out = torch.empty_like(u)
    du, dstep, dA = torch.zeros_like(u), torch.zeros_like(u), torch.zeros_like(A)
    dB, dC = torch.zeros_like(B), torch.zeros_like(C)
    gy = grad_out = grad_out.to(u.dtype)
    if z is not None:
        gate = torch.sigmoid(z)
        gy = grad_out * (z * gate)
    carried = torch.zeros_like(u[:, 0, :, None] * A) if grad_last is None else grad_last
    for start in reversed(range(0, u.shape[1], options.chunk_size)):
        part = slice(start, start + options.chunk_size)
        if start > 0:
            before = kept[:, start // options.chunk_size - 1].mT
        else:
            before = torch.zeros_like(carried) if initial_state is None else initial_state
        step_, u_, B_, C_, gy_ = (x[:, part].contiguous() for x in (step, u, B, C, gy))
        decay, states = _states(step_, u_, A, B_, before)
        # dL/dh_t = gy_t C_t + decay_{t+1} dL/dh_{t+1}: the same recurrence from right to left, in
        # which `carried` already holds the decay into the next chunk.
        grad = gy_[..., None] * C_[:, :, None, :]
        grad[:, -1] += carried
        onward = torch.cat([decay[:, 1:], torch.ones_like(decay[:, :1])], 1)
        grad = _accumulate(onward.flip(1), grad.flip(1)).flip(1)
        carried = decay[:, 0] * grad[:, 0]
        through = grad * decay * torch.cat([before[:, None], states[:, :-1]], 1)
        dx = torch.einsum("bcdn,bcn->bcd", grad, B_)
        dA += torch.einsum("bcdn,bcd->dn", through, step_)
        du[:, part] = dx * step_
        dstep[:, part] = dx * u_ + torch.einsum("bcdn,dn->bcd", through, A)
        dB[:, part] = torch.einsum("bcdn,bcd->bcn", grad, step_ * u_)
        dC[:, part] = torch.einsum("bcdn,bcd->bcn", states, gy_)
        y = torch.einsum("bcdn,bcn->bcd", states, C_)
        out[:, part] = y if D is None else y + D * u_
    dz = dD = None
    if z is not None:
        dz = grad_out * gate * (1 + z * (1 - gate)) * out
        out *= z * gate
    if D is not None:
        dD = (gy * u).sum((0, 1))
        du += gy * D
    if options.delta_softplus:
        dstep = dstep * -torch.expm1(-step)  # sigmoid(x) = 1 - exp(-softplus(x))
    dbias = None if delta_bias is None else dstep.sum((0, 1))
    return [du, dstep, dA, dB, dC, dD, dz, dbias, carried, out]


BACKEND = ByDirection(forward, backward)
