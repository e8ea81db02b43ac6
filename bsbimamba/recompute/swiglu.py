"""The gated feed-forward with the norm before it, if it has one, piece by piece in both passes.

    x → norm → gate and value → silu(gate) value → output

Shazeer, "GLU Variants Improve Transformer", 2020 (arXiv:2002.05202), equation 6. Checkpointed, the
product of gate and value is kept; the norm and what is elementwise are computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.recompute.rows import (
    Checkpointing,
    add_to,
    compute_dtype,
    fields,
    in_order,
    join,
    norm_backward,
    norm_forward,
    pieces,
    restored,
    wanted,
    wide,
)


class Weights(NamedTuple):
    """norm, norm_bias (c), or None for no norm; into (2 h, c), the gate's rows before the value's;
    out (c, h)."""

    norm: Any
    norm_bias: Any
    into: Tensor
    out: Tensor


class Settings(NamedTuple):
    """kept: fields of a piece that outlive the forward pass. epsilon: of the norm. dtype: of the
    products."""

    kept: tuple[str, ...]
    epsilon: float
    dtype: torch.dtype


class _Piece(NamedTuple):
    """What there is of a piece's rows: None where it has to be computed."""

    normed: Any = None  # (m, c)
    mean: Any = None
    rstd: Any = None
    both: Any = None  # gate and value, (m, 2 h)
    opened: Any = None  # silu(gate), (m, h)
    product: Any = None  # (m, h)


_KEPT: dict[Checkpointing, tuple[str, ...]] = {
    False: _Piece._fields,
    True: ("both",),
    "full": (),
}


def swiglu(x: Tensor, weights: Weights, checkpoint: Checkpointing, epsilon: float) -> Tensor:
    """The feed-forward of x (..., c), whose rows are contiguous, in autocast's dtype where that is
    on. Gives (..., c)."""
    dtype = compute_dtype(x)
    if not x.numel():
        return x.to(dtype, copy=True)
    settings = Settings(_KEPT[checkpoint] if wanted(x, *weights) else (), epsilon, dtype)
    return _SwiGLU.apply(x.reshape(-1, x.shape[-1]), settings, *weights).view_as(x)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Settings, *weights: Tensor) -> Tensor:
        w = Weights(*weights)
        outputs, kept = [], []
        with torch.autocast(x.device.type, enabled=False):
            into, out = w.into.to(settings.dtype), w.out.to(settings.dtype)
            for part in pieces(x.shape[0], 1, x.device):
                piece = _completed(_Piece(), x[part], into, w, settings)
                kept += fields(piece, settings.kept)
                outputs.append(piece.product @ out.mT)
                del piece
        ctx.settings = settings
        ctx.save_for_backward(x, *weights, *kept)
        return join(outputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        settings: Settings = ctx.settings
        x, *saved = ctx.saved_tensors
        w = Weights(*saved[: len(Weights._fields)])
        kept = saved[len(Weights._fields) :]
        sums: dict[str, Tensor] = {}
        gradients = []
        with torch.autocast(x.device.type, enabled=False):
            into, out = w.into.to(settings.dtype), w.out.to(settings.dtype)
            for number, part in enumerate(pieces(len(x), 1, x.device)):
                piece = _Piece(**restored(kept, number, settings.kept))
                piece = _completed(piece, x[part], into, w, settings)
                g = grad[part].to(settings.dtype)
                dx, parts = _piece_backward(g, piece, x[part], into, out, w)
                del piece
                gradients.append(dx)
                add_to(sums, parts)
        return join(gradients), None, *in_order(sums, w)


def _completed(piece: _Piece, rows: Tensor, into: Tensor, w: Weights, settings: Settings) -> _Piece:
    """The piece with all that was missing; `into` in the products' dtype."""
    normed, mean, rstd, both, opened, product = piece
    if normed is None:
        normed, mean, rstd = norm_forward(
            rows, w.norm, w.norm_bias, settings.epsilon, settings.dtype
        )
    if both is None:
        both = normed @ into.mT
    gate, value = both.chunk(2, dim=-1)
    if opened is None:
        opened = F.silu(gate)
    if product is None:
        product = opened * value
    return _Piece(normed, mean, rstd, both, opened, product)


def _piece_backward(
    grad: Tensor, piece: _Piece, rows: Tensor, into: Tensor, out: Tensor, w: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradient of a piece's rows (m, c), and its part of each weight's."""
    dout = wide(grad.mT @ piece.product)
    gate, value = piece.both.chunk(2, dim=-1)
    dproduct = grad @ out
    dgate = torch.ops.aten.silu_backward(dproduct * value, gate)
    dboth = torch.cat([dgate, dproduct * piece.opened], -1)
    del dproduct, dgate
    dinto = wide(dboth.mT @ piece.normed)
    dx, of_norm = norm_backward(dboth @ into, rows, piece.mean, piece.rstd, w.norm, w.norm_bias)
    return dx, {"into": dinto, "out": dout, **of_norm}
