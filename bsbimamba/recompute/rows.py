"""What the parts share: how sequences lie in memory, both passes piece by piece, the norm.

Sequences (n, l, c) are taken as they lie: sequence by sequence, or step by step, as a view of
(l, n, c). Products and norms go over rows (m, c), m = n l in the order of memory, so that no path
of a network needs a transposed copy.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

# False keeps all that the backward pass uses; True keeps the expensive matrix products; "full"
# keeps the input alone. What is not kept is computed again.
Checkpointing = bool | Literal["full"]

# Rows of a piece: on a CPU so many that what a step of the computation leaves is still in the cache
# for the next one. On a GPU each piece costs some twenty launches, and it has no such cache.
_CPU_ROWS, _GPU_ROWS = 8192, 16384
_GPU_PIECES = 3


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


def pieces(n: int, length: int, device: torch.device) -> list[slice]:
    """n sequences of `length` rows each in shares that are computed one after the other.

    They bound what is in memory in passing, in both passes. A graph that is exported has one share:
    their number would follow from the length of the example that it is made with.
    """
    if torch.compiler.is_exporting():
        return [slice(0, n)]
    if device.type == "cpu":
        count = -(-n // max(1, _CPU_ROWS // length))
    else:
        count = min(_GPU_PIECES, -(-n * length // _GPU_ROWS))
    size = -(-n // count)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _join(parts: list[Tensor], by_steps: bool) -> Tensor:
    """Put pieces (n, l, c) together again, in the order of memory that they have."""
    if len(parts) == 1:
        return parts[0]
    if by_steps:
        return torch.cat([part.transpose(0, 1) for part in parts], 1).transpose(0, 1)
    return torch.cat(parts)


class Part(Protocol):
    """A part of a network: what it computes of one piece. A NamedTuple of its settings.

    Its weights are a NamedTuple of tensors, None where one is absent. rows are (m, c).
    """

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the names of what outlives the forward pass."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the products."""

    def prepared(self, weights: Sequence[Any]) -> Any:
        """Return the weights as the passes take them, by name."""

    def forward(self, rows: Tensor, layout: Layout, weights: Any) -> tuple[Tensor, list[Any]]:
        """Return the output (m, c), and what is `kept`."""

    def backward(
        self, grad: Tensor, kept: dict[str, Any], rows: Tensor, layout: Layout, weights: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the gradient of the rows, and that of each weight in float32 at least, which is
        summed over pieces."""


class InPieces(torch.autograd.Function):
    """Compute a part of a network on x (n, l, c) in pieces, forward and backward: (n, l, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part, *weights: Any) -> Tensor:
        by_steps = lies_by_steps(x)
        outputs, kept = [], []
        with torch.autocast(x.device.type, enabled=False):
            w = part.prepared(weights)
            for share in pieces(x.shape[0], x.shape[1], x.device):
                layout = Layout(share.stop - share.start, x.shape[1], by_steps)
                y, own = part.forward(layout.rows(x[share]), layout, w)
                kept += own
                outputs.append(layout.back(y))
                del y, own
        ctx.part, ctx.by_steps, ctx.weights = part, by_steps, len(weights)
        ctx.save_for_backward(x, *weights, *kept)
        return _join(outputs, by_steps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part: Part = ctx.part
        x, *saved = ctx.saved_tensors
        weights, kept = saved[: ctx.weights], saved[ctx.weights :]
        sums: dict[str, Tensor] = {}
        gradients, count = [], len(part.kept)
        with torch.autocast(x.device.type, enabled=False):
            w = part.prepared(weights)
            for number, share in enumerate(pieces(x.shape[0], x.shape[1], x.device)):
                layout = Layout(share.stop - share.start, x.shape[1], ctx.by_steps)
                own = dict(zip(part.kept, kept[number * count :], strict=False))
                rows, g = layout.rows(x[share]), layout.rows(grad[share]).to(part.dtype)
                dx, found = part.backward(g, own, rows, layout, w)
                gradients.append(layout.back(dx))
                for name, value in found.items():
                    sums[name] = sums[name].add_(value) if name in sums else value
        of_weights = (
            None if x is None else sums[name].to(x.dtype)
            for name, x in zip(w._fields, weights, strict=True)
        )
        return _join(gradients, ctx.by_steps), None, *of_weights


def norm_forward(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """LayerNorm over the channels of rows (m, c), computed in the dtype of its weights and given in
    `dtype`; and the means and inverse deviations (m, 1) that it took. Without weights, the rows."""
    if weight is None:
        return rows.to(dtype), None, None
    normed, mean, rstd = torch.native_layer_norm(
        rows.to(weight.dtype), rows.shape[-1:], weight, bias, epsilon
    )
    return normed.to(dtype), mean, rstd


def norm_backward(
    grad: Tensor,
    rows: Tensor,
    mean: Tensor | None,
    rstd: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradients of rows (m, c), and of the weights by name, from that of the output."""
    if weight is None:
        return grad.to(rows.dtype), {}
    dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
        grad.to(weight.dtype),
        rows.to(weight.dtype),
        rows.shape[-1:],
        mean,
        rstd,
        weight,
        bias,
        [True, True, True],
    )
    return dx.to(rows.dtype), {"norm": dweight, "norm_bias": dbias}


def wide(x: Tensor) -> Tensor:
    """In float32 at least: what is summed over pieces."""
    return x if x.dtype == torch.float64 else x.float()


def compute_dtype(x: Tensor) -> torch.dtype:
    """Of the products: what autocast says where it is on, else x's."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def wanted(*tensors: Tensor | None) -> bool:
    """Return whether there will be a backward pass."""
    some = any(x is not None and x.requires_grad for x in tensors)
    return some and torch.is_grad_enabled()


def fields(piece: NamedTuple, names: tuple[str, ...]) -> list[Any]:
    """Return fields of a piece. Dynamo cannot trace a comprehension beside `del piece`."""
    return [getattr(piece, name) for name in names]
