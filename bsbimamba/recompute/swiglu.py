"""The gated feed-forward, piece by piece in both passes.

    x → gate and value → silu(gate) value → output

Shazeer, "GLU Variants Improve Transformer", 2020 (arXiv:2002.05202), equation 6. Checkpointed, the
product of gate and value is kept; what is elementwise is computed again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.recompute.rows import (
    Checkpointing,
    Layout,
    along_bands,
    compute_dtype,
    fields,
    in_pieces,
)


class Weights(NamedTuple):
    """into (2 h, c), the gate's rows before the value's; out (c, h)."""

    into: Tensor
    out: Tensor


class _Piece(NamedTuple):
    """What there is of a piece's rows: None where it has to be computed."""

    both: Any = None  # gate and value, (m, 2 h)
    opened: Any = None  # silu(gate), (m, h)
    product: Any = None  # (m, h)


_KEPT: dict[Checkpointing, tuple[str, ...]] = {
    False: _Piece._fields,
    True: ("both",),
    "full": (),
}


def swiglu(x: Tensor, weights: Weights, checkpoint: Checkpointing, norm: Any) -> Tensor:
    """Return the feed-forward of norm(x), both as in `in_pieces`: (k, b, t, c) to the same."""
    part = _SwiGLU(_KEPT[checkpoint], compute_dtype(x))
    # The rows of a frame side by side: so a norm over frames leaves them.
    return in_pieces(x, part, weights, norm, along_bands, keep_normed=checkpoint is False)


class _SwiGLU(NamedTuple):
    """See `part` in `recompute.rows.in_pieces`. dtype: of the products."""

    kept: tuple[str, ...]
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
        dout = grad.mT @ piece.product
        gate, value = piece.both.chunk(2, dim=-1)
        dproduct = grad @ weights.out
        dgate = torch.ops.aten.silu_backward(dproduct * value, gate)
        dboth = torch.cat([dgate, dproduct * piece.opened], -1)
        del dproduct, dgate
        return dboth @ weights.into, {"into": dboth.mT @ rows, "out": dout}

    def completed(self, piece: _Piece, rows: Tensor, w: Weights) -> _Piece:
        """Return the piece with all that was missing."""
        both, opened, product = piece
        if both is None:
            both = rows @ w.into.mT
        gate, value = both.chunk(2, dim=-1)
        if opened is None:
            opened = F.silu(gate)
        if product is None:
            product = opened * value
        return _Piece(both, opened, product)
