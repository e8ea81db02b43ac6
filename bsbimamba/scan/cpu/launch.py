"""Scan and convolution on a CPU: tensors become what the numba kernels take, and back.

The kernels take whole vectors of channels. Other widths are padded by zeros, which the project's
networks do not need, and results are as wide as that: operators cut off what is too much.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.scan.cpu import convolution_kernels
from bsbimamba.scan.cpu.kernel import MAX_GROUPS, share_out
from bsbimamba.scan.cpu.scan_kernels import BLOCK, scan_backward, scan_forward
from bsbimamba.scan.cpu.vectors import LANES
from bsbimamba.scan.interface import SEQUENCES, Inputs, Options, Upstream, for_kernels
from bsbimamba.scan.layout import empty_as, row_major, strides


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    given = _prepared(inputs)
    u, delta, A, B, C, _, z, _, _ = given
    (r, b, length, d), n = u.shape, A.shape[1]
    out = empty_as(u)
    last = torch.empty(r, b, n, d if options.want_last else 0)
    kept = torch.empty(r, b, (length - 1) // options.chunk_size, n, d)
    share_out(
        scan_forward,
        r * b * (d // LANES),
        (r, b, length, d, n),
        tuple(strides(x) for x in (u, delta, B, C, z, out)),
        *given,
        *options[:3],
        *(out, last, kept),
    )
    return out, last.mT, kept[..., : inputs.u.shape[3]].contiguous()


def backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """See `scan.interface.Backend`."""
    given = _prepared(inputs, upstream.out)
    u, delta, A, B, C, _, z, _, initial = given
    (r, b, length, d), n = u.shape, A.shape[1]
    grad_out = row_major(_padded(upstream.out.to(u.dtype)))
    grad_last = None if upstream.last is None else _padded(upstream.last.mT).contiguous()
    groups, blocks = min(b, MAX_GROUPS), -(-d // BLOCK)
    du, ddelta = empty_as(u), empty_as(u)
    dz = None if z is None else empty_as(u)
    out = empty_as(u) if upstream.want_out else None
    dA = torch.empty(r, groups, n, d)
    dD, dbias = (torch.empty(r, groups, d) for _ in range(2))
    dB, dC = (torch.empty(blocks, r, b, length, -(-n // LANES) * LANES) for _ in range(2))
    dinitial = torch.empty(r, b, n, 0 if initial is None else d)
    share_out(
        scan_backward,
        r * groups * blocks,
        groups,
        (r, b, length, d, n),
        tuple(strides(x) for x in (u, delta, B, C, z, grad_out, du)),
        *(grad_out, grad_last, *given, _padded(kept).contiguous()),
        *options[:3],
        *(du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial, out),
    )
    dA, dB, dC = dA.sum(1).mT, dB.sum(0), dC.sum(0)
    return [du, ddelta, dA, dB, dC, dD.sum(1), dz, dbias.sum(1), dinitial.mT, out]


def _prepared(inputs: Inputs, *others: Tensor) -> Inputs:
    """Return the inputs in whole vectors. The sequences stay bfloat16 where all of them (and
    `others`) are, which the kernels read as it is; otherwise they become float32."""
    sequences = [x for x in (getattr(inputs, name) for name in SEQUENCES) if x is not None]
    half = all(x.dtype == torch.bfloat16 for x in (*sequences, *others))
    dtype = torch.bfloat16 if half else torch.float32
    given = inputs.map(lambda name, x: x.to(dtype) if name in SEQUENCES else x)
    return for_kernels(given).map(lambda name, x: x if name in ("B", "C") else _padded(x))


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
        *(u, weight, bias, reverse, out),
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
        *(grad_out, u, weight, bias, reverse, du, dweight, dbias, scratch),
    )
    return [du, dweight.sum(1), dbias.sum(1)]


def _prepared_convolution(u: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return them in whole vectors; u stays bfloat16 if it is."""
    u = row_major(_padded(u if u.dtype == torch.bfloat16 else u.float()))
    return u, _padded(weight), _padded(bias)


def _padded(x: Tensor) -> Tensor:
    """Return x with its last dimension padded by zeros to whole vectors."""
    rest = -x.shape[-1] % LANES
    return F.pad(x, (0, rest)) if rest else x
