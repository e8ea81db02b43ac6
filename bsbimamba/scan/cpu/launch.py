"""Scan and convolution on a CPU: tensors become what the numba kernels take, and back.

The kernels take whole vectors of channels. Other widths are padded by zeros, which the project's
networks do not need, and results are as wide as that: operators cut off what is too much.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.scan.cpu import convolution_kernels
from bsbimamba.scan.cpu.kernel import MAX_GROUPS, share_out
from bsbimamba.scan.cpu.scan_kernels import BLOCK, scan_backward, scan_forward
from bsbimamba.scan.cpu.vectors import LANES
from bsbimamba.scan.interface import SEQUENCES, STATES, Inputs, Options, Upstream
from bsbimamba.scan.layout import empty_as, row_major, strides


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    given = _prepared(inputs)
    r, b, length, d = given.u.shape
    n = given.A.shape[1]
    out = empty_as(given.u)
    last = torch.empty(r, b, n, d if options.want_last else 0)
    kept = torch.empty(r, b, (length - 1) // options.chunk_size, n, d)
    sequences = (given.u, given.delta, given.B, given.C, given.z, out)
    share_out(
        scan_forward,
        r * b * (d // LANES),
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        *_arrays(given),
        *options[:3],
        *(_flat(x) for x in (out, last, kept)),
    )
    return out, last.mT, kept[..., : inputs.u.shape[3]].contiguous()


def backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """See `scan.interface.Backend`."""
    given = _prepared(inputs, upstream.out)
    r, b, length, d = given.u.shape
    n, dtype = given.A.shape[1], given.u.dtype
    grad_out = row_major(_padded(upstream.out.to(dtype)))
    grad_last = None if upstream.last is None else _padded(upstream.last.mT).contiguous()
    groups, blocks = min(b, MAX_GROUPS), -(-d // BLOCK)
    du, ddelta = (empty_as(given.u) for _ in range(2))
    dz = None if inputs.z is None else empty_as(given.u)
    out = empty_as(given.u) if upstream.want_out else None
    dA = torch.empty(r, groups, n, d)
    dD, dbias = (torch.empty(r, groups, d) for _ in range(2))
    dB, dC = (torch.empty(blocks, r, b, length, -(-n // LANES) * LANES) for _ in range(2))
    dinitial = torch.empty(r, b, n, 0 if inputs.initial_state is None else d)
    sequences = (given.u, given.delta, given.B, given.C, given.z, grad_out, du)
    share_out(
        scan_backward,
        r * groups * blocks,
        groups,
        (r, b, length, d, n),
        tuple(strides(x) for x in sequences),
        _flat(grad_out),
        _flat(grad_last),
        *_arrays(given),
        _flat(_padded(kept).contiguous()),
        *options[:3],
        *(_flat(x) for x in (du, ddelta, dA, dB, dC, dD)),
        _flat(dz, dtype),
        *(_flat(x) for x in (dbias, dinitial)),
        _flat(out, dtype),
    )
    dA, dB, dC = dA.sum(1).mT, dB.sum(0), dC.sum(0)
    return [du, ddelta, dA, dB, dC, dD.sum(1), dz, dbias.sum(1), dinitial.mT, out]


def _prepared(inputs: Inputs, *others: Tensor) -> Inputs:
    """Return the inputs as the kernels take them: of whole vectors, A and states transposed.

    The sequences stay bfloat16 where all of them (and `others`) are, which the kernels read as it
    is; otherwise they become float32. D and the bias are zeros where they are absent.
    """
    sequences = [x for x in (getattr(inputs, name) for name in SEQUENCES) if x is not None]
    half = all(x.dtype == torch.bfloat16 for x in (*sequences, *others))
    dtype = torch.bfloat16 if half else torch.float32

    def prepared(name: str, x: Tensor) -> Tensor:
        if name in SEQUENCES:
            x = x.to(dtype)
            return row_major(x if name in ("B", "C") else _padded(x))
        return _padded((x.mT if name in STATES else x).float()).contiguous()

    none = inputs.A.new_zeros(inputs.A.shape[:2])
    D, bias = (none if x is None else x for x in (inputs.D, inputs.delta_bias))
    return inputs._replace(D=D, delta_bias=bias).map(prepared)


def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """See `scan.convolution`."""
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
    return out


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> list[Tensor]:
    """See `scan.convolution`."""
    u, weight, bias = _prepared_convolution(u, weight, bias)
    (r, b, length, d), taps = u.shape, weight.shape[1]
    grad_out = row_major(_padded(grad_out.to(u.dtype)))
    groups = min(b, MAX_GROUPS)
    du, dbias = empty_as(u), torch.empty(r, groups, d)
    dweight, scratch = torch.empty(r, groups, taps, d), torch.empty(r, groups, taps, d)
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
    return [du, dweight.sum(1).mT, dbias.sum(1)]


def _prepared_convolution(u: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the kernels take: weight (r, taps, d); bfloat16 u as it is, all else float32."""
    u = row_major(_padded(u if u.dtype == torch.bfloat16 else u.float()))
    return u, _padded(weight.float().mT).contiguous(), _padded(bias.float()).contiguous()


def _arrays(inputs: Inputs) -> list[np.ndarray]:
    dtype = inputs.u.dtype
    return [
        _flat(x, dtype if name in SEQUENCES else torch.float32)
        for name, x in zip(Inputs._fields, inputs, strict=True)
    ]


def _flat(x: Tensor | None, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Return all of the memory that x reaches over as one array, bfloat16 as uint16.

    Where x is absent, an array of size 0 of `dtype`.
    """
    if x is None:
        x = torch.empty(0, dtype=dtype)
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    values = x.detach().as_strided((reach + 1 if x.numel() else 0,), (1,))
    return values.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else values.numpy()


def _padded(x: Tensor) -> Tensor:
    """Return x with its last dimension padded by zeros to whole vectors."""
    rest = -x.shape[-1] % LANES
    return F.pad(x, (0, rest)) if rest else x
