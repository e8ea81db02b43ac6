"""Scan and convolution on a GPU: launches the Triton kernels.

With TRITON_INTERPRET=1 in the environment before Triton is first imported, the same kernels run on
a CPU, slowly.
"""

from typing import Any

import torch
from torch import Tensor

from bsbimamba.scan.interface import SEQUENCES, STATES, Inputs, Options, Upstream, borders
from bsbimamba.scan.layout import empty_as, row_major, scanning_order, strides

# A warp and two channels a lane: B and C, which all channels of a step share, are loaded once for
# both. What TILE steps need is loaded at once. maxnreg: registers that a thread may have. The sizes
# are the fastest of those that were tried on an H100, over both paths (EXPERIMENTS.md).
FORWARD: dict[str, Any] = {"BLOCK": 64, "TILE": 4, "num_warps": 1, "maxnreg": None}
BACKWARD: dict[str, Any] = {"BLOCK": 64, "TILE": 4, "num_warps": 1, "maxnreg": 168}
# At most so many programs of the backward pass, with equal shares of the sequences: enough to fill
# a large GPU; more only cost memory for partial sums (and gain less than a tenth on the band path).
PROGRAMS = 1200


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    from bsbimamba.scan.triton.scan_kernels import scan_forward

    prepared = _prepared(inputs)
    u, delta, A, _, _, _, z, _, _ = prepared
    r, b, length, d = u.shape
    n = A.shape[1]
    out = empty_as(u)
    last = _new(u, r, b, n, d if options.want_last else 0)
    kept = borders(inputs, options)
    arrays = (*prepared[:3], _packed(prepared, options), *prepared[5:], out, last, kept)
    with _device_of(u):
        scan_forward[(r * b * -(-d // FORWARD["BLOCK"]),)](
            *(u if x is None else x for x in arrays),
            *(strides(x) for x in (u, delta, z, out)),
            *(b, length, d),
            WANT_LAST=options.want_last,
            **_settings(prepared, options),
            **FORWARD,
        )
    return out, last.mT, kept


def backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """See `scan.interface.Backend`."""
    from bsbimamba.scan.triton.scan_kernels import scan_backward

    prepared = _prepared(inputs)
    u, delta, A, _, _, _, z, _, initial = prepared
    r, b, length, d = u.shape
    n = A.shape[1]
    grad_out = row_major(upstream.out)
    grad_last = None if upstream.last is None else upstream.last.mT.contiguous()
    blocks = -(-d // BACKWARD["BLOCK"])
    groups = min(b, max(1, PROGRAMS // (r * blocks)))
    groups = -(-b // -(-b // groups))
    tiles = -(-min(length, options.chunk_size) // BACKWARD["TILE"])
    du, ddelta = (empty_as(u, x.dtype) for x in (u, delta))
    dz = None if z is None else empty_as(u, z.dtype)
    out = empty_as(u) if upstream.want_out else None
    dA = torch.zeros(r, groups, n, d, device=u.device)
    dBC = _new(u, blocks, r, b, length, 2, n)
    dD, dbias = (_new(u, r, groups, d) for _ in range(2))
    dinitial = None if initial is None else _new(u, r, b, n, d)
    scratch, carry = _new(u, r, groups, tiles, n, d), _new(u, r, groups, n, d)
    arrays = (
        *(grad_out, grad_last, *prepared[:3], _packed(prepared, options), *prepared[5:], kept),
        *(du, ddelta, dA, dBC, dD, dz, dbias, dinitial, out, scratch, carry),
    )
    with _device_of(u):
        scan_backward[(r * groups * blocks,)](
            *(u if x is None else x for x in arrays),
            *(strides(x) for x in (u, delta, z, grad_out, du)),
            *(r, b, length, d, groups),
            HAS_LAST=grad_last is not None,
            WANT_OUT=upstream.want_out,
            LEVELS=BACKWARD["TILE"].bit_length(),
            **_settings(prepared, options),
            **BACKWARD,
        )
    del arrays, scratch, carry
    dB, dC = (scanning_order(x, options.reverse) for x in dBC.sum(0).unbind(3))
    # Copies, or of the smallest shapes they would be views of one tensor.
    dB, dC = (x.clone(memory_format=torch.contiguous_format) for x in (dB, dC))
    dinitial = None if dinitial is None else dinitial.mT
    return [du, ddelta, dA.sum(1).mT, dB, dC, dD.sum(1), dz, dbias.sum(1), dinitial, out]


def _prepared(inputs: Inputs) -> Inputs:
    """Return what is read at every step as it is; parameters and states in float32, the latter with
    the channels last."""
    return inputs.map(
        lambda name, x: (
            row_major(x)
            if name in SEQUENCES
            else (x.mT if name in STATES else x).float().contiguous()
        )
    )


def _packed(inputs: Inputs, options: Options) -> Tensor:
    """B and C as (r, b, l, 2, n) in float32 and in scanning order: the kernels then find those of
    the steps to come at constant distances. They are n/d of the size of u."""
    both = [scanning_order(x.float(), options.reverse) for x in (inputs.B, inputs.C)]
    return torch.stack(both, 3)


def _settings(inputs: Inputs, options: Options) -> dict[str, Any]:
    return {
        "CHUNK": options.chunk_size,
        "REVERSE": options.reverse,
        "SOFTPLUS": options.delta_softplus,
        "HAS_D": inputs.D is not None,
        "HAS_Z": inputs.z is not None,
        "HAS_BIAS": inputs.delta_bias is not None,
        "HAS_INITIAL": inputs.initial_state is not None,
        "N": inputs.A.shape[1],
        "enable_fp_fusion": True,
    }


def _new(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _device_of(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; this makes it that of x (on a CPU, none)."""
    return torch.cuda.device(x.device if x.is_cuda else -1)


# Channels and steps of a program of the convolution.
_CONV: dict[str, Any] = {"BLOCK": 64, "SEGMENT": 64}


def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """See `scan.convolution`."""
    from bsbimamba.scan.triton.convolution_kernels import conv_forward

    u, weight, bias, grid, settings = _prepared_convolution(u, weight, bias, reverse)
    out = empty_as(u)
    with _device_of(u):
        conv_forward[grid](
            *(u, weight, bias, out), *(strides(x) for x in (u, out)), *u.shape[1:], **settings
        )
    return out


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> list[Tensor]:
    """See `scan.convolution`."""
    from bsbimamba.scan.triton.convolution_kernels import conv_backward

    u, weight, bias, grid, settings = _prepared_convolution(u, weight, bias, reverse)
    grad_out = row_major(grad_out)
    (r, b, length, d), taps = u.shape, weight.shape[1]
    segments = -(-length // _CONV["SEGMENT"])
    du = empty_as(u)
    dweight, dbias = _new(u, r, b, segments, taps, d), _new(u, r, b, segments, d)
    with _device_of(u):
        conv_backward[grid](
            *(grad_out, u, weight, bias, du, dweight, dbias),
            *(strides(x) for x in (u, grad_out, du)),
            *(b, length, d),
            **settings,
        )
    return [du, dweight.sum((1, 2)).transpose(1, 2), dbias.sum((1, 2))]


def _prepared_convolution(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> tuple:
    """What the kernels take: u, weight (r, taps, d), bias; how many programs; the settings."""
    r, b, length, d = u.shape
    weight = weight.float().transpose(1, 2).contiguous()
    programs = r * b * -(-length // _CONV["SEGMENT"]) * -(-d // _CONV["BLOCK"])
    settings = {"REVERSE": reverse, "TAPS": weight.shape[1], **_CONV}
    settings |= {"num_warps": 1, "enable_fp_fusion": True}
    return row_major(u), weight, bias.float().contiguous(), (programs,), settings
