"""Mamba's mixer in one or two directions, with the Linear behind it.

    x → W_u, W_z → convolution, SiLU → W_x → W_dt → scan, gate → W_out

Both passes take the sequences piece by piece (`recompute.rows`), so that of the wide tensors in
between only what is kept exists for all of them at once. Checkpointed, that is the expensive matrix
products: the two halves of in_proj, and x_proj's few columns with the scan's states at chunk
borders. The convolution and Δ (a product of rank 12) are computed again. The scan is not:
its backward pass walks through the states anyway, and hands over the output, too.

Shapes: `r` directions, `n` sequences, `l` scanned length, `m` = n l rows, `c` channels, `d` inner
width, `s` states, `k` rank of Δ. Source of the equations: Gu and Dao, "Mamba", 2023
(arXiv:2312.00752), figure 3 and algorithm 2; the gradients are those of its factors.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.recompute.rows import Along, Checkpointing, Layout, compute_dtype, fields, in_pieces
from bsbimamba.scan.api import scan_backward, scan_forward
from bsbimamba.scan.convolution import convolution_backward, convolution_forward
from bsbimamba.scan.interface import Inputs, Options, Upstream


class Weights(NamedTuple):
    """The mixer's parameters, those of its directions side by side.

    u, z (r d, c); conv (r, d, taps), conv_bias (r, d);
    x (r, k + 2 s, d), its rows those of Δ, B and C; dt (r, d, k), dt_bias (r, d); A (r, d, s);
    D (r, d); out (r d, c), out_bias (c) or None.
    """

    u: Tensor
    z: Tensor
    conv: Tensor
    conv_bias: Tensor
    x: Tensor
    dt: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    out: Tensor
    out_bias: Any


class _Piece(NamedTuple):
    """What there is of a piece: None where it has to be computed. rows (m, ·) and directions
    (r, n, l, ·) as named; kept is the scan's own."""

    u: Any = None  # before the convolution, (m, r d)
    z: Any = None  # (m, r d)
    convolved: Any = None  # (r, n, l, d)
    selected: Any = None  # Δ's factor, B and C, (r, m, k + 2 s)
    delta: Any = None  # (r, n, l, d)
    out: Any = None  # of the scan, (r, n, l, d)
    kept: Any = None


_KEPT: dict[Checkpointing, tuple[str, ...]] = {
    False: _Piece._fields,
    True: ("u", "z", "selected", "kept"),
    "full": (),
}


def mix(
    x: Tensor,
    weights: Weights,
    checkpoint: Checkpointing,
    chunk_size: int,
    reverse: bool,
    norm: Any,
    along: Along,
) -> Tensor:
    """Return the mixer's output for norm(x), both as in `in_pieces`.

    Gradients cannot be differentiated again.

    Raises:
        ValueError: the backend that BSBIMAMBA_SCAN names cannot run.
    """
    part = _Mixer(_KEPT[checkpoint], chunk_size, reverse, compute_dtype(x))
    return in_pieces(x, part, weights, norm, along, keep_normed=checkpoint is False)


class _Mixer(NamedTuple):
    """See `part` in `recompute.rows.in_pieces`.

    reverse: the first direction reads from right to left, and the second, if there is one, the
    other way. dtype: of the products.

    Wide tensors are let go as soon as nothing needs them any more.
    """

    kept: tuple[str, ...]
    chunk_size: int
    reverse: bool
    dtype: torch.dtype

    @property
    def options(self) -> Options:
        return Options(True, self.reverse, self.chunk_size, want_last=False)

    def prepared(self, weights: Sequence[Any]) -> Weights:
        w = Weights(*weights)
        matrices = ("u", "z", "x", "dt", "out")
        return w._replace(**{name: getattr(w, name).to(self.dtype) for name in matrices})

    def forward(self, rows: Tensor, layout: Layout, weights: Weights) -> tuple[Tensor, list[Any]]:
        piece = self.completed(_Piece(), rows, layout, weights)
        kept = fields(piece, self.kept)
        y = layout.rows(piece.out)
        del piece
        bias = weights.out_bias
        return F.linear(y, weights.out.mT, None if bias is None else bias.to(y.dtype)), kept

    def backward(
        self, grad: Tensor, kept: dict[str, Any], rows: Tensor, layout: Layout, weights: Weights
    ) -> tuple[Tensor, dict[str, Tensor]]:
        w = weights
        r, rank = len(w.A), w.dt.shape[-1]
        whole = self.completed(_Piece(**kept), rows, layout, w, out=False)
        u, z, convolved, selected, delta, y, borders = whole
        del whole, kept
        inputs = _scan_inputs(convolved, delta, selected, z, w, layout)
        sums: dict[str, Tensor] = {}
        if w.out_bias is not None:
            sums["out_bias"] = grad.sum(0)
        dy = layout.directions(grad @ w.out.mT, r)
        upstream = Upstream(dy, None, want_out=y is None)
        found, again = scan_backward(upstream, inputs, borders, self.options)
        del dy, inputs, upstream
        y = again if y is None else y
        sums["out"] = layout.rows(y).mT @ grad
        del y, again
        dz = layout.rows(cast(Tensor, found.z))
        sums["z"] = dz.mT @ rows
        ddelta = _by_direction(found.delta, layout)
        sums["dt"] = torch.bmm(ddelta.mT, selected[..., :rank])
        dselected = torch.cat(
            [torch.bmm(ddelta, w.dt), *(_by_direction(x, layout) for x in (found.B, found.C))], -1
        )
        du = _by_direction(found.u, layout)
        sums |= {
            "A": found.A,
            "D": cast(Tensor, found.D),
            "dt_bias": cast(Tensor, found.delta_bias),
        }
        del found, ddelta, delta
        sums["x"] = torch.bmm(dselected.mT, _by_direction(convolved, layout))
        du.baddbmm_(dselected, w.x)
        del convolved
        du, sums["conv"], sums["conv_bias"] = convolution_backward(
            _by_sequence(du, layout),
            layout.directions(u, r),
            w.conv,
            w.conv_bias,
            self.reverse,
        )
        du = layout.rows(du)
        sums["u"] = du.mT @ rows
        return torch.addmm(dz @ w.z, du, w.u), sums

    def completed(
        self, piece: _Piece, rows: Tensor, layout: Layout, w: Weights, out: bool = True
    ) -> _Piece:
        """Return the piece with all that was missing; the scan's output only where it is asked for,
        or where what the scan's backward pass needs was not kept either."""
        r = len(w.A)
        u, z, convolved, selected, delta, y, kept = piece
        if u is None or z is None:
            u, z = rows @ w.u.mT, rows @ w.z.mT
        if convolved is None:
            convolved = convolution_forward(
                layout.directions(u, r), w.conv, w.conv_bias, self.reverse
            )
        if selected is None:
            selected = torch.bmm(_by_direction(convolved, layout), w.x.mT)
        if delta is None:
            factor = selected[..., : w.dt.shape[-1]]
            delta = _by_sequence(torch.bmm(factor, w.dt.mT), layout)
        if (y is None and out) or kept is None:
            y, kept = scan_forward(
                _scan_inputs(convolved, delta, selected, z, w, layout), self.options
            )
        return _Piece(u, z, convolved, selected, delta, y, kept)


def _by_direction(x: Tensor, layout: Layout) -> Tensor:
    """(r, n, l, ·) to (r, m, ·); a view of what lies as `layout` says."""
    return (x.transpose(1, 2) if layout.by_steps else x).flatten(1, 2)


def _by_sequence(x: Tensor, layout: Layout) -> Tensor:
    """(r, m, ·) to (r, n, l, ·); a view."""
    if layout.by_steps:
        return x.unflatten(1, (layout.length, layout.sequences)).transpose(1, 2)
    return x.unflatten(1, (layout.sequences, layout.length))


def _scan_inputs(
    u: Tensor, delta: Tensor, selected: Tensor, z: Tensor, w: Weights, layout: Layout
) -> Inputs:
    rank, states = w.dt.shape[-1], w.A.shape[-1]
    _, B, C = _by_sequence(selected, layout).split([rank, states, states], dim=-1)
    return Inputs(u, delta, w.A, B, C, w.D, layout.directions(z, len(w.A)), w.dt_bias)
