"""Scan and convolution on a CPU: tensors become what the numba kernels take, and back."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.scan.cpu import convolution_kernels
from bsbimamba.scan.cpu.kernel import MAX_GROUPS, share_out
from bsbimamba.scan.cpu.scan_kernels import BLOCK, scan_backward, scan_forward
from bsbimamba.scan.cpu.vectors import LANES
from bsbimamba.scan.interface import SEQUENCES, Inputs, Options, absent_as_empty
from bsbimamba.scan.layout import empty_as, laid_out_as, row_major, strides


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    width = inputs.u.shape[3]
    padded = _prepared(inputs)
    r, b, length, d = padded.u.shape
    n = padded.A.shape[1]
    out = empty_as(padded.u)
    last = torch.empty((r, b, n, d) if options.want_last else (0,))
    borders = torch.empty(r, b, (length - 1) // options.chunk_size, n, d)
    sequences = (padded.u, padded.delta, padded.B, padded.C, padded.z, out)
    share_out(
        scan_forward,
        r * b * (d // LANES),
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        *_arrays(padded),
        *options[:3],
        *(_flat(x) for x in (out, last, borders)),
    )
    last = _fit(last, width).transpose(2, 3).contiguous() if options.want_last else last
    return laid_out_as(inputs.u, _fit(out, width)), last, _fit(borders, width)


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
    padded = _prepared(inputs, grad_out)
    r, b, length, d = padded.u.shape
    n, dtype = padded.A.shape[1], padded.u.dtype
    grad_out = row_major(_fit(grad_out.to(dtype), d))
    grad_last = None if grad_last is None else _states_first(grad_last, d)
    groups, blocks = min(b, MAX_GROUPS), -(-d // BLOCK)
    du, ddelta = (empty_as(padded.u) for _ in range(2))
    dz = empty_as(padded.u) if inputs.z is not None else None
    out = empty_as(padded.u) if want_out else None
    dA = torch.empty(r, groups, n, d)
    dD, dbias = (torch.empty(r, groups, d) for _ in range(2))
    dB, dC = (torch.empty(blocks, r, b, length, -(-n // LANES) * LANES) for _ in range(2))
    dinitial = torch.empty(r, b, n, d) if inputs.initial_state is not None else None
    sequences = (padded.u, padded.delta, padded.B, padded.C, padded.z, grad_out, du)
    share_out(
        scan_backward,
        r * groups * blocks,
        groups,
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        _flat(grad_out, dtype),
        _flat(grad_last),
        *_arrays(padded),
        _flat(_fit(borders, d).contiguous()),
        *options[:3],
        *(_flat(x) for x in (du, ddelta, dA, dB, dC, dD)),
        _flat(dz, dtype),
        *(_flat(x) for x in (dbias, dinitial)),
        _flat(out, dtype),
    )
    gradients = [
        _fit(du, width),
        _fit(ddelta, width),
        _fit(dA.sum(1), width).transpose(1, 2),
        _fit(dB.sum(0), n),
        _fit(dC.sum(0), n),
        _fit(dD.sum(1), width),
        None if dz is None else _fit(dz, width),
        _fit(dbias.sum(1), width),
        None if dinitial is None else _fit(dinitial, width).transpose(2, 3),
    ]
    return absent_as_empty(gradients, inputs, None if out is None else _fit(out, width))


def _prepared(inputs: Inputs, *others: Tensor) -> Inputs:
    """The inputs as the kernels take them: padded to whole vectors, and A transposed.

    u, delta, B, C and z stay bfloat16 where all of them (and `others`) are, which the kernels read
    as it is; otherwise they become float32.
    """
    u, delta, A, B, C, D, z, bias, initial = inputs
    sequences = [x for x in (u, delta, B, C, z, *others) if x is not None]
    half = all(x.dtype == torch.bfloat16 for x in sequences)
    dtype = torch.bfloat16 if half else torch.float32
    d = -(-u.shape[3] // LANES) * LANES
    return Inputs(
        row_major(_fit(u.to(dtype), d)),
        row_major(_fit(delta.to(dtype), d)),
        _states_first(A, d),
        row_major(B.to(dtype)),
        row_major(C.to(dtype)),
        None if D is None else _fit(D.float(), d).contiguous(),
        None if z is None else row_major(_fit(z.to(dtype), d)),
        None if bias is None else _fit(bias.float(), d).contiguous(),
        None if initial is None else _states_first(initial, d),
    )


def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """See `scan.convolution`."""
    width = u.shape[3]
    u, weight, bias = _prepared_convolution(u, weight, bias)
    r, b, length, d = u.shape
    out = empty_as(u)
    share_out(
        convolution_kernels.conv_forward,
        r * b * -(-d // convolution_kernels.BLOCK),
        (r, b, length, d, weight.shape[1]),
        *(strides(x) for x in (u, out)),
        *(_flat(x) for x in (u, weight, bias)),
        reverse,
        _flat(out),
    )
    return _fit(out, width)


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> list[Tensor]:
    """See `scan.convolution`."""
    width = u.shape[3]
    u, weight, bias = _prepared_convolution(u, weight, bias)
    (r, b, length, d), taps = u.shape, weight.shape[1]
    grad_out = row_major(_fit(grad_out.to(u.dtype), d))
    groups = min(b, MAX_GROUPS)
    du = empty_as(u)
    dweight, scratch = torch.empty(r, groups, taps, d), torch.empty(r, groups, taps, d)
    dbias = torch.empty(r, groups, d)
    share_out(
        convolution_kernels.conv_backward,
        r * groups * -(-d // convolution_kernels.BLOCK),
        groups,
        (r, b, length, d, taps),
        *(strides(x) for x in (u, grad_out, du)),
        *(_flat(x) for x in (grad_out, u, weight, bias)),
        reverse,
        *(_flat(x) for x in (du, dweight, dbias, scratch)),
    )
    dweight = dweight.sum(1)[..., :width].transpose(1, 2)
    return [_fit(du, width), dweight, _fit(dbias.sum(1), width)]


def _prepared_convolution(u: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernels take: weight (r, taps, d); bfloat16 u as it is, all else as float32."""
    d = -(-u.shape[3] // LANES) * LANES
    u = u if u.dtype == torch.bfloat16 else u.float()
    weight = _fit(weight.float().transpose(1, 2), d).contiguous()
    return row_major(_fit(u, d)), weight, _fit(bias.float(), d).contiguous()


def _arrays(inputs: Inputs) -> list[np.ndarray]:
    dtype = inputs.u.dtype
    return [
        _flat(x, dtype if name in SEQUENCES else torch.float32)
        for name, x in zip(Inputs._fields, inputs, strict=True)
    ]


def _flat(x: Tensor | None, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """All of the memory that x reaches over as one array, bfloat16 as uint16.

    Where x is absent, an array of size 0 of `dtype`.
    """
    if x is None:
        x = torch.empty(0, dtype=dtype)
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    values = x.detach().as_strided((reach + 1 if x.numel() else 0,), (1,))
    return values.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else values.numpy()


def _states_first(x: Tensor, width: int) -> Tensor:
    """(..., d, n) to (..., n, width)."""
    return _fit(x.float().mT, width).contiguous()


def _fit(x: Tensor, width: int) -> Tensor:
    """x with so many channels, its last dimension: padded by zeros, or the padding cut off.

    The kernels take whole vectors; no width of the project's networks needs padding.
    """
    if x.shape[-1] < width:
        return F.pad(x, (0, width - x.shape[-1]))
    return x if x.shape[-1] == width else empty_as(x[..., :width]).copy_(x[..., :width])
