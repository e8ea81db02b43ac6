"""What every backend of the scan takes and gives, for both passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bsbimamba.scan.layout import laid_out_as, row_major, scanning_order, ways, within

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# The tensors that run along the sequence; the others are parameters and states.
SEQUENCES = ("u", "delta", "B", "C", "z")
# Those of the shape of u, and so the tensors of a backward pass that are laid out as it is.
AS_U = ("u", "delta", "z", "out")
# Those of shape (..., d, n), which the kernels take as (..., n, d).
STATES = ("A", "initial_state")


class Inputs(NamedTuple):
    """The tensors of `scan.selective_scan`, None where absent, each with directions r in front.

    u, delta, z (r, b, l, d); A (r, d, n); B, C (r, b, l, n); D, delta_bias (r, d); initial_state
    (r, b, d, n). r is 1, or 2 for a scan in both directions, each with values of its own. Strides
    are any. Either all are float64, or each is float32, bfloat16 or float16, and the backend
    computes in float32.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None
    initial_state: Tensor | None = None

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32

    def map(self, function: Callable[[str, Tensor], Tensor]) -> Inputs:
        """Return function(name, tensor) of each that is there."""
        pairs = zip(self._fields, self, strict=True)
        return Inputs(*(None if x is None else function(name, x) for name, x in pairs))  # type: ignore[arg-type]

    def computing(self) -> Inputs:
        """Return all of them in `compute_dtype`."""
        return self.map(lambda _, x: x.to(self.compute_dtype))


# The axes of each without directions, one letter an axis.
_AXES = ("bld", "bld", "dn", "bln", "bln", "d", "bld", "d", "bdn")
AXES = dict(zip(Inputs._fields, _AXES, strict=True))


class Options(NamedTuple):
    """How to scan them. `reverse` is the first direction's; a second one goes the other way.
    Where the last state is not wanted a tensor of size 0 stands for it."""

    delta_softplus: bool
    reverse: bool
    chunk_size: int
    want_last: bool


class Upstream(NamedTuple):
    """The gradients of the output (r, b, l, d) and, where there is one, of the last state
    (r, b, d, n); and whether the backward pass is to return the output again."""

    out: Tensor
    last: Tensor | None
    want_out: bool


class Backend(Protocol):
    """A module with these functions.

    Results may have any layout and float dtype, and further channels behind their own. None may
    alias an input or another result.
    """

    def forward(self, inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (r, b, l, d), the last state (r, b, d, n), which may be anything where
        it is not wanted, and what the backward pass needs, in the computing dtype.

        That is the state with which each chunk but the first begins, in scanning order:
        (r, b, ceil(l / chunk) - 1, n, d).
        """

    def backward(
        self, upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
    ) -> list[Tensor | None]:
        """Return the gradient of each input, in the order of `Inputs`, and the output again:
        whoever did not keep it has it at no further pass over the sequence. What belongs to an
        absent input, or is not wanted, may be anything."""


def check_arguments(inputs: Inputs, options: Options, directions: bool) -> None:
    """Raise ValueError unless all are float tensors on one device whose shapes agree.

    directions: each has 1 or 2 directions in front.
    """
    sizes: dict[str, int] = {}
    for name, x in inputs._asdict().items():
        if x is None and name in Inputs._field_defaults:
            continue
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} is of type {type(x).__name__}, expected a tensor")
        shape, expected = tuple(x.shape), "r" * directions + AXES[name]
        if x.dtype not in FLOATS:
            raise ValueError(f"{name} {shape} has dtype {x.dtype}, expected one of {FLOATS}")
        if x.device != inputs.u.device:
            raise ValueError(f"{name} {shape} is on {x.device}, u is on {inputs.u.device}")
        fits = len(shape) == len(expected) and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(expected, shape, strict=True)
        )
        if not fits:
            known = ", ".join(f"{axis} = {sizes[axis]}" for axis in expected if axis in sizes)
            raise ValueError(f"{name} has shape {shape}, expected ({', '.join(expected)}): {known}")
    if directions and sizes["r"] not in (1, 2):
        raise ValueError(f"u has {sizes['r']} directions, expected 1 or 2")
    if options.chunk_size < 1:
        raise ValueError(f"chunk_size is {options.chunk_size}, expected at least 1")


def for_kernels(inputs: Inputs) -> Inputs:
    """Return the sequences with channels side by side, and parameters and states dense in float32,
    the latter as (..., n, d). D and delta_bias are zeros where they are absent."""
    zeros = inputs.A.new_zeros(inputs.A.shape[:2])
    D, bias = (zeros if x is None else x for x in (inputs.D, inputs.delta_bias))
    return inputs._replace(D=D, delta_bias=bias).map(
        lambda name, x: (
            row_major(x)
            if name in SEQUENCES
            else (x.mT if name in STATES else x).float().contiguous()
        )
    )


def borders(inputs: Inputs, options: Options) -> Tensor:
    """Return an empty tensor for what a backend keeps for its backward pass, see `Backend`."""
    r, b, length, d = inputs.u.shape
    count = (length - 1) // options.chunk_size
    return inputs.u.new_empty(r, b, count, inputs.A.shape[2], d, dtype=inputs.compute_dtype)


class ByDirection:
    """A `Backend` made of two functions that see one direction, without that dimension, and all
    sequences in scanning order.

    Args:
        forward: of (inputs, options), returns output (b, l, d), last state (b, d, n), kept.
        backward: of (grad_out, grad_last, inputs, kept, options), returns the gradient of each
            input and the output again.
    """

    def __init__(self, forward: Callable, backward: Callable) -> None:
        self.forward_one, self.backward_one = forward, backward

    def forward(self, inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        results = [self.forward_one(one, options) for one in _directions(inputs, options)]
        out, last, kept = (torch.stack(parts) for parts in zip(*results, strict=True))
        return scanning_order(out, options.reverse), last, kept

    def backward(
        self, upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
    ) -> list[Tensor | None]:
        grad_out = scanning_order(upstream.out, options.reverse)
        grad_last = [None] * len(grad_out) if upstream.last is None else upstream.last
        each = zip(grad_out, grad_last, _directions(inputs, options), kept, strict=True)
        results = [self.backward_one(*one, options) for one in each]
        found: list[Tensor | None] = []
        for name, parts in zip((*Inputs._fields, "out"), zip(*results, strict=True), strict=True):
            if parts[0] is None:
                found.append(None)
                continue
            x = torch.stack(parts)
            turned = name in (*SEQUENCES, "out")
            found.append(scanning_order(x, options.reverse) if turned else x)
        return found


def by_autograd(
    scan: Callable[[Inputs], Tensor], inputs: Inputs, grad_out: Tensor
) -> list[Tensor | None]:
    """Return the gradients of scan(inputs) in the order of `Inputs`, and its value."""
    with torch.enable_grad():
        leaves = inputs.map(lambda _, x: x.detach().requires_grad_())
        out = scan(leaves)
        given = [x for x in leaves if x is not None]
        found = iter(torch.autograd.grad(out, given, grad_out.to(out.dtype)))
    return [*(None if x is None else next(found) for x in leaves), out.detach()]


def _directions(inputs: Inputs, options: Options) -> list[Inputs]:
    def one(r: int, way: bool) -> Inputs:
        return inputs.map(lambda name, x: x[r].flip(1) if way and name in SEQUENCES else x[r])

    return [one(*each) for each in enumerate(ways(len(inputs.u), options.reverse))]


def finished(gradients: list[Tensor | None], inputs: Inputs, want_out: bool) -> list[Tensor]:
    """Return what `Backend.backward` gives as operators return it: in each input's shape and dtype,
    of size 0 where it is absent; of u's shape laid out as `empty_as(u)`, all others contiguous."""
    u = inputs.u
    names = (*Inputs._fields, "out")
    like = [*inputs, u if want_out else None]
    return [
        u.new_empty(0)
        if x is None or value is None
        else laid_out_as(u, value, x.dtype)
        if name in AS_U
        else within(x, value).to(x.dtype).contiguous()
        for name, value, x in zip(names, gradients, like, strict=True)
    ]
