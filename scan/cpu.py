"""The selective scan on a CPU: numba kernels shared out over a pool of threads."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scan.arrays import cut, empty_as, flat, laid_out_as, pad, row_major, strides
from scan.cpu_kernels import BLOCK, scan_backward, scan_forward
from scan.interface import SEQUENCES, Inputs, Options, absent_as_empty
from scan.threads import MAX_GROUPS, share_out
from scan.vectors import LANES


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    width = inputs.u.shape[3]
    padded, _ = _prepared(inputs)
    r, b, length, d = padded.u.shape
    n = padded.A.shape[1]
    out = empty_as(padded.u)
    last = torch.empty((r, b, d, n) if options.want_last else (0,))
    borders = torch.empty(r, b, (length - 1) // options.chunk_size, n, d)
    sequences = (padded.u, padded.delta, padded.B, padded.C, padded.z, out)
    arguments = (
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        *_arrays(padded),
        *options[:3],
        *(flat(x) for x in (out, last, borders)),
    )
    share_out(scan_forward, r * b * (d // LANES), *arguments)
    out = laid_out_as(inputs.u, cut(out, width))
    return out, _cut_rows(last, width), cut(borders, width)


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    inputs: Inputs,
    borders: Tensor,
    options: Options,
    want_out: bool = False,
) -> list[Tensor]:
    """See `scan.interface.Backend`."""
    width = inputs.u.shape[3]
    padded, dtype = _prepared(inputs, grad_out)
    r, b, length, d = padded.u.shape
    n = padded.A.shape[1]
    grad_out = row_major(pad(grad_out.to(dtype), d))
    grad_last = None if grad_last is None else _pad_rows(grad_last.float(), d)
    groups, blocks = min(b, MAX_GROUPS), -(-d // BLOCK)
    du, ddelta = (empty_as(padded.u) for _ in range(2))
    dz = empty_as(padded.u) if inputs.z is not None else None
    out = empty_as(padded.u) if want_out else None
    dA = torch.empty(r, groups, n, d)
    whole = -(-n // LANES) * LANES
    dB, dC = (torch.empty(blocks, r, b, length, whole) for _ in range(2))
    dD = torch.empty(r, groups, d) if inputs.D is not None else None
    dbias = torch.empty(r, groups, d) if inputs.delta_bias is not None else None
    dinitial = torch.empty(r, b, d, n) if inputs.initial_state is not None else None
    sequences = (padded.u, padded.delta, padded.B, padded.C, padded.z, grad_out, du)
    arguments = (
        groups,
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        flat(grad_out, dtype),
        flat(grad_last),
        *_arrays(padded),
        flat(pad(borders, d).contiguous()),
        *options[:3],
        *(flat(x) for x in (du, ddelta, dA, dB, dC, dD)),
        flat(dz, dtype),
        *(flat(x) for x in (dbias, dinitial)),
        flat(out, dtype),
    )
    share_out(scan_backward, r * groups * blocks, *arguments)
    return absent_as_empty(
        [
            cut(du, width),
            cut(ddelta, width),
            dA.sum(1)[..., :width].transpose(1, 2).contiguous(),
            cut(dB.sum(0), n),
            cut(dC.sum(0), n),
            None if dD is None else cut(dD.sum(1), width),
            None if dz is None else cut(dz, width),
            None if dbias is None else cut(dbias.sum(1), width),
            None if dinitial is None else _cut_rows(dinitial, width),
        ],
        inputs,
        None if out is None else cut(out, width),
    )


def _prepared(inputs: Inputs, *others: Tensor) -> tuple[Inputs, torch.dtype]:
    """The inputs as the kernels take them: padded to whole vectors, and A transposed.

    Also the dtype of u, delta, B, C and z: bfloat16 where all of them (and `others`) are, which
    the kernels read as it is; otherwise float32.
    """
    u, delta, A, B, C, D, z, bias, initial = inputs
    sequences = [x for x in (u, delta, B, C, z, *others) if x is not None]
    half = all(x.dtype == torch.bfloat16 for x in sequences)
    dtype = torch.bfloat16 if half else torch.float32
    d = -(-u.shape[3] // LANES) * LANES
    prepared = Inputs(
        row_major(pad(u.to(dtype), d)),
        row_major(pad(delta.to(dtype), d)),
        pad(A.float().transpose(1, 2), d).contiguous(),
        row_major(B.to(dtype)),
        row_major(C.to(dtype)),
        None if D is None else pad(D.float(), d).contiguous(),
        None if z is None else row_major(pad(z.to(dtype), d)),
        None if bias is None else pad(bias.float(), d).contiguous(),
        None if initial is None else _pad_rows(initial.float(), d),
    )
    return prepared, dtype


def _arrays(inputs: Inputs) -> list[np.ndarray]:
    dtype = inputs.u.dtype
    return [
        flat(x, dtype if name in SEQUENCES else torch.float32)
        for name, x in zip(Inputs._fields, inputs, strict=True)
    ]


def _pad_rows(state: Tensor, width: int) -> Tensor:
    """A state (r, b, d, n) with d padded to `width`."""
    missing = width - state.shape[2]
    return (F.pad(state, (0, 0, 0, missing)) if missing else state).contiguous()


def _cut_rows(state: Tensor, width: int) -> Tensor:
    whole = state.dim() == 1 or state.shape[2] == width
    return state if whole else state[:, :, :width].contiguous()
