"""What the parts share: the norm before them, both passes piece by piece, how rows lie in memory.

Features are (k, b, t, c): bands, batch, frames, channels. A norm takes all of them at once; what it
gives, sequences (n, l, c), goes through a part piece by piece. They are taken as they lie: sequence
by sequence, or step by step, as a view of (l, n, c). Products go over rows (m, c), m = n l in the
order of memory.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

# False keeps all that the backward pass uses; True keeps the expensive matrix products; "full"
# keeps the input alone. What is not kept is computed again.
Checkpointing = bool | Literal["full"]

# Rows of a piece on a CPU: so many that what a step of the computation leaves is still in the cache
# for the next one.
_CPU_ROWS = 8192


def check_checkpointing(mode: Checkpointing) -> Checkpointing:
    """The mode, or ValueError."""
    if mode not in (False, True, "full"):
        raise ValueError(f"use_checkpoint is {mode!r}, expected False, True or 'full'")
    return mode


class Layout(NamedTuple):
    """How sequences (n, l, ·) lie in memory: by steps, (l, n, ·), or by sequences."""

    sequences: int
    length: int
    by_steps: bool

    def rows(self, x: Tensor) -> Tensor:
        """(n, l, c) or (r, n, l, d) to rows (m, c) or (m, r d); a view of what lies like this."""
        if x.dim() == 4:
            x = x.permute((2, 1, 0, 3) if self.by_steps else (1, 2, 0, 3)).flatten(2)
        elif self.by_steps:
            x = x.transpose(0, 1)
        return x.flatten(0, 1)

    def directions(self, rows: Tensor, r: int) -> Tensor:
        """Rows (m, r d) to (r, n, l, d); a view."""
        split = self._split(rows).unflatten(-1, (r, -1))
        return split.permute((2, 1, 0, 3) if self.by_steps else (2, 0, 1, 3))

    def back(self, rows: Tensor) -> Tensor:
        """Rows (m, c) to (n, l, c); a view."""
        split = self._split(rows)
        return split.transpose(0, 1) if self.by_steps else split

    def _split(self, rows: Tensor) -> Tensor:
        outer, inner = self.sequences, self.length
        return rows.unflatten(0, (inner, outer) if self.by_steps else (outer, inner))


def lies_by_steps(x: Tensor) -> bool:
    """Whether x (n, l, c) is best taken as the view of (l, n, c) that it is."""
    return not x.is_contiguous() and x.stride(0) < x.stride(1)


class Along(NamedTuple):
    """Which sequences (n, l, c) features are: the bands of each frame, or the frames of each band.

    Neither way makes a copy of features that are contiguous.
    """

    bands: bool

    def sequences(self, x: Tensor) -> Tensor:
        """(k, b, t, c) to (n, l, c). Along time, also (n, l, c) to the same."""
        return x.flatten(1, 2).transpose(0, 1) if self.bands else x.flatten(0, -3)

    def features(self, y: Tensor, shape: torch.Size) -> Tensor:
        """The way back, to features of this shape."""
        if self.bands:
            return y.transpose(0, 1).unflatten(1, shape[1:3])
        return y.unflatten(0, shape[:-2])

    def steps(self, x: Tensor) -> Tensor:
        """(k, b, t, c) to (l, n, c): the sequences step by step."""
        return (x if self.bands else x.permute(2, 1, 0, 3)).flatten(1, 2)

    def features_of_steps(self, y: Tensor, shape: torch.Size) -> Tensor:
        """The way back, to features of this shape."""
        k, b, t, _ = shape
        if self.bands:
            return y.unflatten(1, (b, t))
        return y.unflatten(1, (b, k)).permute(2, 1, 0, 3)


along_time, along_bands = Along(bands=False), Along(bands=True)


def pieces(n: int, length: int, device: torch.device) -> list[slice]:
    """Return n sequences of `length` rows each in shares that are computed one after the other.

    A GPU, where each costs some twenty launches, has one share. So has a graph that is exported:
    their number would follow from the length of the example that it is made with.
    """
    if torch.compiler.is_exporting() or device.type != "cpu":
        return [slice(0, n)]
    count = -(-n // max(1, _CPU_ROWS // length))
    size = -(-n // count)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _shares(x: Tensor) -> list[tuple[slice, Layout]]:
    """Return the `pieces` of x (n, l, c), and how each lies in memory."""
    by_steps = lies_by_steps(x)
    return [
        (share, Layout(share.stop - share.start, x.shape[1], by_steps))
        for share in pieces(x.shape[0], x.shape[1], x.device)
    ]


def _join(parts: list[Tensor], by_steps: bool) -> Tensor:
    """Put pieces (n, l, c) together again, in the order of memory that they have."""
    if len(parts) == 1:
        return parts[0]
    if by_steps:
        return torch.cat([part.transpose(0, 1) for part in parts], 1).transpose(0, 1)
    return torch.cat(parts)


def in_pieces(
    x: Tensor, part: Any, weights: Sequence[Any], norm: Any, along: Along, keep_normed: bool
) -> Tensor:
    """Compute a part of a network on norm(x), in autocast's dtype where that is on.

    Args:
        x: features (k, b, t, c), or sequences (n, l, c) along time. So is what is returned.
        part: what is computed of one piece, a NamedTuple of settings. Among them are `kept`, the
            names of what outlives the forward pass, and `dtype`, that of the products. `prepared`
            gives the weights as the passes take them, by name. `forward` gives the output (m, c)
            of rows (m, c), and what is kept; `backward` the gradients of the rows and, by name, of
            the weights.
        weights: None where one is absent.
        norm: a `network.bands.Norm`, or None for no norm.
        keep_normed: keep norm(x) for the backward pass, which computes it again otherwise.
    """
    if not x.numel():
        return x.to(part.dtype, copy=True)
    dims, epsilon, *own = ((), 0.0, None, None)
    if norm is not None:
        dims, epsilon, *own = norm.dims, norm.eps, norm.weight, norm.bias
    asked = any(y is not None and y.requires_grad for y in (x, *own, *weights))
    if not (wanted := asked and torch.is_grad_enabled()):  # there will be no backward pass
        part = part._replace(kept=())
    settings = part, along, dims, epsilon, keep_normed and wanted
    return InPieces.apply(x, settings, *own, *weights)


class InPieces(torch.autograd.Function):
    """See `in_pieces`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        settings: Any,
        weight: Tensor | None,
        bias: Tensor | None,
        *weights: Any,
    ) -> Tensor:
        part, along, *_, keep_normed = ctx.settings = settings
        with torch.autocast(x.device.type, enabled=False):
            normed, mean, rstd = _normed(x, weight, bias, settings)
            outputs, kept = [], []
            w = part.prepared(weights)
            for share, layout in _shares(normed):
                y, own = part.forward(layout.rows(normed[share]), layout, w)
                kept += own
                outputs.append(layout.back(y))
                del y, own
        ctx.weights = len(weights)
        of_norm = (normed, mean, rstd) if keep_normed else (None, None, None)
        ctx.save_for_backward(x, weight, bias, *of_norm, *weights, *kept)
        return along.features(_join(outputs, lies_by_steps(normed)), x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part, along, dims, *_ = ctx.settings
        x, weight, bias, normed, mean, rstd, *saved = ctx.saved_tensors
        weights, kept = saved[: ctx.weights], saved[ctx.weights :]
        sums: dict[str, Tensor] = {}
        gradients, count = [], len(part.kept)
        with torch.autocast(x.device.type, enabled=False):
            if normed is None:
                normed, mean, rstd = _normed(x, weight, bias, ctx.settings)
            grad = along.sequences(grad)
            w = part.prepared(weights)
            for number, (share, layout) in enumerate(_shares(normed)):
                own = dict(zip(part.kept, kept[number * count :], strict=False))
                rows, g = layout.rows(normed[share]), layout.rows(grad[share])
                dx, found = part.backward(g, own, rows, layout, w)
                gradients.append(layout.back(dx))
                for name, value in found.items():
                    if name in sums:  # summed over pieces in float32 at least
                        wide = torch.promote_types(value.dtype, torch.float32)
                        value = sums[name].to(wide).add_(value)
                    sums[name] = value
            of_weights = [
                None if x is None else sums[name].to(x.dtype)
                for name, x in zip(w._fields, weights, strict=True)
            ]
            dx = along.features(_join(gradients, lies_by_steps(normed)), x.shape).to(x.dtype)
            if not dims:
                return dx, None, None, None, *of_weights
            dx, *of_norm = layer_norm_backward(dx, x, dims, weight, bias, mean, rstd)
        return dx, None, *of_norm, *of_weights


def _normed(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, settings: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the sequences (n, l, c) of norm(x), means and inverse deviations."""
    part, along, dims, epsilon, _ = settings
    normed, *of_norm = layer_norm(x, dims, epsilon, weight, bias) if dims else (x, None, None)
    return along.sequences(normed.to(part.dtype)), *of_norm


def compute_dtype(x: Tensor) -> torch.dtype:
    """Of the products: what autocast says where it is on, else x's."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def fields(piece: NamedTuple, names: tuple[str, ...]) -> list[Any]:
    """Return fields of a piece. Dynamo cannot trace a comprehension beside `del piece`."""
    return [getattr(piece, name) for name in names]


def layer_norm(
    x: Tensor,
    dims: tuple[int, ...],
    epsilon: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Any, Any]:
    """Normalise x (..., c) over `dims`, and apply a gain and an offset (c), in the dtype of x.

    dims: the last dimension, and others before it.

    Returns:
        The result, which lies in memory with `dims` last; the means and inverse deviations as
        PyTorch's operator gives them, None in a graph that is exported.
    """
    if torch.compiler.is_exporting():
        # The operator would fix the number of frames to that of the example.
        x = x - _mean(x, dims)
        x = x * torch.rsqrt(_mean(x.square(), dims) + epsilon)
        return x if weight is None or bias is None else torch.addcmul(bias, x, weight), None, None
    order, sizes, back = _order(x, dims)
    # Autocast would make copies in float32 first. Statistics are of that precision anyway.
    with torch.autocast(x.device.type, enabled=False):
        gain, offset = _expanded(x, sizes, weight, bias)
        y, mean, rstd = torch.native_layer_norm(x.permute(order), sizes, gain, offset, epsilon)
    return y.permute(back), mean, rstd


def layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, weight and bias from that of the result, in the dtype of x."""
    order, sizes, back = _order(x, dims)
    own = _expanded(x, sizes, weight, bias)
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        grad.permute(order), x.permute(order), sizes, mean, rstd, *own, [True, True, True]
    )
    return dx.permute(back), dweight.sum_to_size(weight.shape), dbias.sum_to_size(bias.shape)


def _mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Over `dims`, one by one: onnxruntime adds up a million numbers badly."""
    for dim in reversed(dims):
        x = x.mean(dim, keepdim=True)
    return x


def _order(x: Tensor, dims: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    """Return the dimensions of x as they lie but with `dims` last, the sizes of these, and the
    order back."""
    others = sorted(set(range(x.dim())) - set(dims), key=x.stride, reverse=True)
    order = [*others, *dims]
    return order, [x.shape[dim] for dim in dims], [order.index(dim) for dim in range(x.dim())]


def _expanded(x: Tensor, sizes: list[int], *weights: Tensor | None) -> list[Tensor | None]:
    """Return gain and offset (c) as PyTorch's operators take them.

    On a CPU the operators give statistics in the precision of these, which must not be half.
    """
    dtype = x.dtype if x.is_cuda or x.dtype == torch.float64 else torch.float32
    if dtype != x.dtype and weights[0] is None:
        weights = x.new_ones((), dtype=dtype), x.new_zeros((), dtype=dtype)
    return [None if w is None else w.to(dtype).expand(sizes) for w in weights]
