"""Scan and convolution on a GPU: launches the Triton kernels.

With TRITON_INTERPRET=1 in the environment before Triton is first imported, the same kernels run on
a CPU, slowly.
"""

from typing import Any

import torch
from torch import Tensor

from bsbimamba.scan.interface import Inputs, Options, Upstream, borders, for_kernels
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

    given = for_kernels(inputs)
    u, delta, A, _, _, _, z, _, _ = given
    (r, b, length, d), n = u.shape, A.shape[1]
    out = empty_as(u)
    last = _new(u, r, b, n, d if options.want_last else 0)
    kept = borders(inputs, options)
    arrays = (*given[:3], _packed(given, options), *given[5:], out, last, kept)
    with _device_of(u):
        scan_forward[(r * b * -(-d // FORWARD["BLOCK"]),)](
            *(u if x is None else x for x in arrays),
            *(strides(x) for x in (u, delta, z, out)),
            *(b, length, d),
            WANT_LAST=options.want_last,
            **_settings(given, options),
            **FORWARD,
        )
    return out, last.mT, kept


def backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """See `scan.interface.Backend`."""
    from bsbimamba.scan.triton.scan_kernels import scan_backward

    given = for_kernels(inputs)
    u, delta, A, _, _, _, z, _, initial = given
    (r, b, length, d), n = u.shape, A.shape[1]
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
        *(grad_out, grad_last, *given[:3], _packed(given, options), *given[5:], kept),
        *(du, ddelta, dA, dBC, dD, dz, dbias, dinitial, out, scratch, carry),
    )
    with _device_of(u):
        scan_backward[(r * groups * blocks,)](
            *(u if x is None else x for x in arrays),
            *(strides(x) for x in (u, delta, z, grad_out, du)),
            *(r, b, length, d, groups),
            HAS_LAST=grad_last is not None,
            WANT_OUT=upstream.want_out,
            **_settings(given, options),
            **BACKWARD,
        )
    del arrays, scratch, carry
    dB, dC = (scanning_order(x, options.reverse) for x in dBC.sum(0).unbind(3))
    # Copies, or of the smallest shapes they would be views of one tensor.
    dB, dC = (x.clone(memory_format=torch.contiguous_format) for x in (dB, dC))
    dinitial = None if dinitial is None else dinitial.mT
    return [du, ddelta, dA.sum(1).mT, dB, dC, dD.sum(1), dz, dbias.sum(1), dinitial, out]


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
        "HAS_Z": inputs.z is not None,
        "HAS_INITIAL": inputs.initial_state is not None,
        "N": inputs.A.shape[1],
        "enable_fp_fusion": True,
    }


def _new(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _device_of(x: Tensor) -> torch.cuda.device:
    """Triton launches on the current device; this makes it that of x (on a CPU, none)."""
    return torch.cuda.device(x.device if x.is_cuda else -1)


# BLOCK and SEGMENT: channels and steps of a program of the convolution.
_CONV: dict[str, Any] = {"BLOCK": 64, "SEGMENT": 64, "num_warps": 1, "enable_fp_fusion": True}


def convolution_forward(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """See `scan.convolution`."""
    from bsbimamba.scan.triton.convolution_kernels import conv_forward

    u = row_major(u)
    r, b, length, d = u.shape
    out = empty_as(u)
    with _device_of(u):
        conv_forward[(r * b * -(-length // _CONV["SEGMENT"]) * -(-d // _CONV["BLOCK"]),)](
            *(u, weight, bias, out),
            *(strides(x) for x in (u, out)),
            *(b, length, d),
            REVERSE=reverse,
            TAPS=weight.shape[1],
            **_CONV,
        )
    return out


def convolution_backward(
    grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
) -> list[Tensor]:
    """See `scan.convolution`."""
    from bsbimamba.scan.triton.convolution_kernels import conv_backward

    u, grad_out = row_major(u), row_major(grad_out)
    (r, b, length, d), taps = u.shape, weight.shape[1]
    segments = -(-length // _CONV["SEGMENT"])
    du = empty_as(u)
    dweight, dbias = _new(u, r, b, segments, taps, d), _new(u, r, b, segments, d)
    with _device_of(u):
        conv_backward[(r * b * segments * -(-d // _CONV["BLOCK"]),)](
            *(grad_out, u, weight, bias, du, dweight, dbias),
            *(strides(x) for x in (u, grad_out, du)),
            *(b, length, d),
            REVERSE=reverse,
            TAPS=taps,
            **_CONV,
        )
    return [du, dweight.sum((1, 2)), dbias.sum((1, 2))]
