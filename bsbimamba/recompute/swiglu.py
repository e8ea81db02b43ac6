"""The gated feed-forward with the norm before it, if it has one, piece by piece in both passes.

    x → norm → gate and value → silu(gate) value → output

Shazeer, "GLU Variants Improve Transformer", 2020 (arXiv:2002.05202), equation 6. Checkpointed, the
product of gate and value is kept; the norm and what is elementwise are computed again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.recompute.rows import (
    Checkpointing,
    InPieces,
    Layout,
    compute_dtype,
    fields,
    norm_backward,
    norm_forward,
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
    """Return the feed-forward of x (..., c), whose rows are contiguous, in autocast's dtype where
    that is on: (..., c)."""
    dtype = compute_dtype(x)
    if not x.numel():
        return x.to(dtype, copy=True)
    part = _SwiGLU(_KEPT[checkpoint] if wanted(x, *weights) else (), epsilon, dtype)
    return InPieces.apply(x.reshape(-1, 1, x.shape[-1]), part, *weights).view_as(x)


class _SwiGLU(NamedTuple):
    """See `recompute.rows.Part`. epsilon: of the norm. dtype: of the products."""

    kept: tuple[str, ...]
    epsilon: float
    dtype: torch.dtype

    def prepared(self, weights: Sequence[Any]) -> Weights:
        w = Weights(*weights)
        return w._replace(into=w.into.to(self.dtype), out=w.out.to(self.dtype))

    def forward(self, rows: Tensor, layout: Layout, weights: Weights) -> tuple[Tensor, list[Any]]:
        piece = self.completed(_Piece(), rows, weights)
        return piece.product @ weights.out.mT, fields(piece, self.kept)

    def backward(
        self, grad: Tensor, kept: dict[str, Any], rows: Tensor, layout: Layout, weights: Weights
    ) -> tuple[Tensor, dict[str, Tensor]]:
        piece = self.completed(_Piece(**kept), rows, weights)
        dout = wide(grad.mT @ piece.product)
        gate, value = piece.both.chunk(2, dim=-1)
        dproduct = grad @ weights.out
        dgate = torch.ops.aten.silu_backward(dproduct * value, gate)
        dboth = torch.cat([dgate, dproduct * piece.opened], -1)
        del dproduct, dgate
        dinto = wide(dboth.mT @ piece.normed)
        dx, of_norm = norm_backward(
            dboth @ weights.into, rows, piece.mean, piece.rstd, weights.norm, weights.norm_bias
        )
        return dx, {"into": dinto, "out": dout, **of_norm}

    def completed(self, piece: _Piece, rows: Tensor, w: Weights) -> _Piece:
        """Return the piece with all that was missing."""
        normed, mean, rstd, both, opened, product = piece
        if normed is None:
            normed, mean, rstd = norm_forward(rows, w.norm, w.norm_bias, self.epsilon, self.dtype)
        if both is None:
            both = normed @ w.into.mT
        gate, value = both.chunk(2, dim=-1)
        if opened is None:
            opened = F.silu(gate)
        if product is None:
            product = opened * value
        return _Piece(normed, mean, rstd, both, opened, product)
