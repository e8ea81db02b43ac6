"""One piece of the mixer's sequences: what its two passes compute, and in which order.

Notation as in `recompute.mixer`. Wide tensors are let go as soon as nothing needs them any more.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from bsbimamba.recompute.rows import Layout, norm_backward, norm_forward, wide
from bsbimamba.scan.api import scan_backward, scan_forward
from bsbimamba.scan.convolution import convolution_backward, convolution_forward
from bsbimamba.scan.interface import Inputs, Options


class Weights(NamedTuple):
    """The mixer's parameters, those of its directions side by side.

    norm, norm_bias (c), or None for no norm; u, z (r d, c); conv (r, d, taps), conv_bias (r, d);
    x (r, k + 2 s, d), its rows those of Δ, B and C; dt (r, d, k), dt_bias (r, d); A (r, d, s);
    D (r, d); out (c, r d), out_bias (c) or None.
    """

    norm: Any
    norm_bias: Any
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

    def products_in(self, dtype: torch.dtype) -> Weights:
        """The same with the matrices in `dtype`."""
        matrices = ("u", "z", "x", "dt", "out")
        return self._replace(**{name: getattr(self, name).to(dtype) for name in matrices})


class Settings(NamedTuple):
    """kept: fields of a piece that outlive the forward pass. reverse: the first direction reads
    from right to left, and the second, if there is one, the other way. epsilon: of the norm.
    dtype: of the products."""

    kept: tuple[str, ...]
    chunk_size: int
    reverse: bool
    epsilon: float
    dtype: torch.dtype

    @property
    def options(self) -> Options:
        return Options(True, self.reverse, self.chunk_size, want_last=False)


class Piece(NamedTuple):
    """What there is of a piece: None where it has to be computed. rows (m, ·) and directions
    (r, n, l, ·) as named; kept is the scan's own."""

    normed: Any = None  # (m, c)
    mean: Any = None
    rstd: Any = None
    u: Any = None  # before the convolution, (m, r d)
    z: Any = None  # (m, r d)
    convolved: Any = None  # (r, n, l, d)
    selected: Any = None  # Δ's factor, B and C, (r, m, k + 2 s)
    delta: Any = None  # (r, n, l, d)
    out: Any = None  # of the scan, (r, n, l, d)
    kept: Any = None


def completed(
    piece: Piece, rows: Tensor, layout: Layout, w: Weights, settings: Settings, out: bool = True
) -> Piece:
    """The piece with all that was missing; the scan's output only where it is asked for, or
    where what the scan's backward pass needs was not kept either."""
    r = len(w.A)
    normed, mean, rstd, u, z, convolved, selected, delta, y, kept = piece
    if normed is None:
        normed, mean, rstd = norm_forward(
            rows, w.norm, w.norm_bias, settings.epsilon, settings.dtype
        )
    if u is None or z is None:
        u, z = normed @ w.u.mT, normed @ w.z.mT
    if convolved is None:
        convolved = convolution_forward(
            layout.directions(u, r), w.conv, w.conv_bias, settings.reverse
        )
    if selected is None:
        selected = torch.bmm(_by_direction(convolved, layout), w.x.mT)
    if delta is None:
        factor = selected[..., : w.dt.shape[-1]]
        delta = _by_sequence(torch.bmm(factor, w.dt.mT), layout)
    if (y is None and out) or kept is None:
        y, kept = scan_forward(
            _scan_inputs(convolved, delta, selected, z, w, layout), settings.options
        )
    return Piece(normed, mean, rstd, u, z, convolved, selected, delta, y, kept)


def piece_backward(
    grad: Tensor, piece: Piece, rows: Tensor, layout: Layout, w: Weights, settings: Settings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradient of a piece's rows (m, c), and its part of each weight's in float32 at least."""
    r, rank = len(w.A), w.dt.shape[-1]
    whole = completed(piece, rows, layout, w, settings, out=False)
    normed, mean, rstd, u, z, convolved, selected, delta, y, kept = whole
    del whole, piece
    inputs = _scan_inputs(convolved, delta, selected, z, w, layout)
    sums: dict[str, Tensor] = {}
    if w.out_bias is not None:
        sums["out_bias"] = wide(grad).sum(0)
    dy = layout.directions(grad @ w.out, r)
    found, again = scan_backward(dy, inputs, kept, settings.options, want_out=y is None)
    del dy, inputs
    y = again if y is None else y
    sums["out"] = wide(grad.mT @ layout.rows(y))
    del y, again
    dz = layout.rows(cast(Tensor, found.z))
    sums["z"] = wide(dz.mT @ normed)
    ddelta = _by_direction(found.delta, layout)
    sums["dt"] = wide(torch.bmm(ddelta.mT, selected[..., :rank]))
    dselected = torch.cat(
        [torch.bmm(ddelta, w.dt), *(_by_direction(x, layout) for x in (found.B, found.C))], -1
    )
    du = _by_direction(found.u, layout)
    sums |= {"A": found.A, "D": cast(Tensor, found.D), "dt_bias": cast(Tensor, found.delta_bias)}
    del found, ddelta, delta
    sums["x"] = wide(torch.bmm(dselected.mT, _by_direction(convolved, layout)))
    for way in range(r):
        du[way].addmm_(dselected[way], w.x[way])
    del convolved
    du, sums["conv"], sums["conv_bias"] = convolution_backward(
        _by_sequence(du, layout),
        layout.directions(u, r),
        w.conv,
        w.conv_bias,
        settings.reverse,
    )
    du = layout.rows(du)
    sums["u"] = wide(du.mT @ normed)
    dnormed = torch.addmm(dz @ w.z, du, w.u)
    dx, of_norm = norm_backward(dnormed, rows, mean, rstd, w.norm, w.norm_bias)
    return dx, sums | of_norm


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
    return Inputs(u, delta, w.A, B, C, w.D, layout.directions(z, len(w.A)), w.dt_bias, None)
