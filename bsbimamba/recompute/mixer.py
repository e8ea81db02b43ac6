"""Mamba's mixer in one or two directions, with the norm before it and the Linear behind it.

    x → norm → W_u, W_z → convolution, SiLU → W_x → W_dt → scan, gate → W_out

Both passes take the sequences piece by piece (`recompute.rows`), so that of the wide tensors in
between only what is kept exists for all of them at once. Checkpointed, that is the expensive matrix
products: the two halves of in_proj, and x_proj's few columns with the scan's states at chunk
borders. The norm, the convolution and Δ (a product of rank 12) are computed again. The scan is not:
its backward pass walks through the states anyway, and hands over the output, too.

Shapes: `r` directions, `n` sequences, `l` scanned length, `m` = n l rows, `c` channels, `d` inner
width, `s` states, `k` rank of Δ. Source of the equations: Gu and Dao, "Mamba", 2023
(arXiv:2312.00752), figure 3 and algorithm 2; the gradients are those of its factors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.recompute.mixer_piece import Piece, Settings, Weights, completed, piece_backward
from bsbimamba.recompute.rows import (
    Checkpointing,
    Layout,
    add_to,
    compute_dtype,
    fields,
    in_order,
    join,
    lies_by_steps,
    pieces,
    restored,
    wanted,
)

__all__ = ["Weights", "mix"]

_KEPT: dict[Checkpointing, tuple[str, ...]] = {
    False: Piece._fields,
    True: ("u", "z", "selected", "kept"),
    "full": (),
}


def mix(
    x: Tensor,
    weights: Weights,
    checkpoint: Checkpointing,
    chunk_size: int,
    reverse: bool,
    epsilon: float,
) -> Tensor:
    """The mixer's output (n, l, c) for x (n, l, c), in autocast's dtype where that is on.

    Gradients cannot be differentiated again.

    Raises:
        ValueError: the backend that BSBIMAMBA_SCAN names cannot run.
    """
    dtype = compute_dtype(x)
    if not x.numel():
        return x.to(dtype, copy=True)
    kept = _KEPT[checkpoint] if wanted(x, *weights) else ()
    settings = Settings(kept, chunk_size, reverse, epsilon, dtype)
    return _Mix.apply(x, settings, *weights)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Settings, *weights: Any) -> Tensor:
        w = Weights(*weights)
        by_steps = lies_by_steps(x)
        outputs, kept = [], []
        with torch.autocast(x.device.type, enabled=False):
            matrices = w.products_in(settings.dtype)
            for part in pieces(x.shape[0], x.shape[1], x.device):
                layout = Layout(part.stop - part.start, x.shape[1], by_steps)
                piece = completed(Piece(), layout.rows(x[part]), layout, matrices, settings)
                kept += fields(piece, settings.kept)
                y = layout.rows(piece.out)
                del piece
                bias = None if w.out_bias is None else w.out_bias.to(y.dtype)
                outputs.append(layout.back(F.linear(y, matrices.out, bias)))
                del y
        ctx.settings, ctx.by_steps = settings, by_steps
        ctx.save_for_backward(x, *weights, *kept)
        return join(outputs, by_steps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        settings: Settings = ctx.settings
        x, *saved = ctx.saved_tensors
        w = Weights(*saved[: len(Weights._fields)])
        kept = saved[len(Weights._fields) :]
        sums: dict[str, Tensor] = {}
        gradients = []
        with torch.autocast(x.device.type, enabled=False):
            matrices = w.products_in(settings.dtype)
            for number, part in enumerate(pieces(len(x), x.shape[1], x.device)):
                layout = Layout(part.stop - part.start, x.shape[1], ctx.by_steps)
                piece = Piece(**restored(kept, number, settings.kept))
                rows = layout.rows(x[part])
                g = layout.rows(grad[part]).to(settings.dtype)
                dx, parts = piece_backward(g, piece, rows, layout, matrices, settings)
                gradients.append(layout.back(dx))
                add_to(sums, parts)
        return join(gradients, ctx.by_steps), None, *in_order(sums, w)
