"""What every backend of the scan takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bsbimamba.scan.layout import laid_out_as, scanning_order


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
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None

    @property
    def compute_dtype(self) -> torch.dtype:
        return torch.float64 if self.u.dtype == torch.float64 else torch.float32

    def computing(self) -> Inputs:
        """All of them in `compute_dtype`."""
        return Inputs(*(None if x is None else x.to(self.compute_dtype) for x in self))  # type: ignore[arg-type]


# The tensors that run along the sequence; the others are parameters and states.
SEQUENCES = ("u", "delta", "B", "C", "z")
# Those of the shape of u, and so the tensors of a backward pass that are laid out as it is.
AS_U = ("u", "delta", "z", "out")


class Options(NamedTuple):
    """How to scan them. `reverse` is the first direction's; a second one goes the other way.
    Where the last state is not wanted a tensor of size 0 stands for it."""

    delta_softplus: bool
    reverse: bool
    chunk_size: int
    want_last: bool


class Backend(Protocol):
    """A module with these functions. No output may alias an input or another output."""

    def forward(self, inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (r, b, l, d) in u's dtype, laid out as `empty_as(u)` of `scan.layout`,
        the last state (r, b, d, n) in the computing dtype, and what the backward pass needs.

        That is the state with which each chunk but the first begins, in scanning order:
        (r, b, ceil(l / chunk) - 1, n, d).
        """

    def backward(
        self,
        grad_out: Tensor,
        grad_last: Tensor | None,
        inputs: Inputs,
        borders: Tensor,
        options: Options,
        want_out: bool = False,
    ) -> list[Tensor]:
        """The gradient of each input in its dtype and shape, in the order of `Inputs`; of size 0
        for an absent one. Behind them the output again, of size 0 unless it is wanted: whoever did
        not keep it has it at no further pass over the sequence. Those of u's shape are laid out as
        `bsbimamba.scan.layout.empty_as(u)`, all others contiguous."""


FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_arguments(tensors: Mapping[str, Any], axes: Mapping[str, str], directions: bool) -> None:
    """Raise ValueError unless all are dense float tensors on one device whose shapes agree.

    Args:
        tensors: by name. None is allowed for those of which it is the default.
        axes: the axes of each, one letter an axis; the same letter means the same size.
        directions: each has 1 or 2 directions in front.
    """
    sizes: dict[str, int] = {}
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} is of type {type(x).__name__}, expected a tensor")
        shape, expected = tuple(x.shape), "r" * directions + axes[name]
        if x.dtype not in FLOATS:
            raise ValueError(f"{name} {shape} has dtype {x.dtype}, expected one of {FLOATS}")
        if x.device != tensors["u"].device:
            raise ValueError(f"{name} {shape} is on {x.device}, u is on {tensors['u'].device}")
        if x.layout != torch.strided:
            raise ValueError(f"{name} {shape} is {x.layout}, expected a dense tensor")
        fits = len(shape) == len(expected) and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(expected, shape, strict=True)
        )
        if not fits:
            known = ", ".join(f"{axis} = {sizes[axis]}" for axis in expected if axis in sizes)
            raise ValueError(f"{name} has shape {shape}, expected ({', '.join(expected)}): {known}")
    if directions and sizes["r"] not in (1, 2):
        raise ValueError(f"u has {sizes['r']} directions, expected 1 or 2")


def refuse_forward_mode() -> None:
    """Raise NotImplementedError where derivatives are taken forwards, which would come out as 0."""
    if torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(
            "this backend has no forward-mode derivative (jvp, jacfwd, make_dual). "
            "Use reverse mode, or backend='reference' of the scan."
        )


def absent_as_empty(
    gradients: list[Tensor | None], inputs: Inputs, out: Tensor | None = None
) -> list[Tensor]:
    """What `Backend.backward` returns, from gradients of any dtype and layout, None for none."""
    u = inputs.u
    names = (*Inputs._fields, "out")
    return [
        u.new_empty(0)
        if x is None or value is None
        else laid_out_as(u, value, x.dtype)
        if name in AS_U
        else value.to(x.dtype).contiguous()
        for name, value, x in zip(names, [*gradients, out], [*inputs, u], strict=True)
    ]


def ways(count: int, reverse: bool) -> tuple[bool, ...]:
    """Whether each of one or two directions is reversed."""
    return (reverse, not reverse)[:count]


def each_direction(inputs: Inputs, options: Options) -> Iterator[Inputs]:
    """The inputs of each direction, without that dimension, their sequences in scanning order."""
    for r, way in enumerate(ways(len(inputs.u), options.reverse)):
        one: dict[str, Any] = {k: None if x is None else x[r] for k, x in inputs._asdict().items()}
        turned = {k: one[k].flip(1) for k in SEQUENCES if way and one[k] is not None}
        yield Inputs(**{**one, **turned})


def joined(
    results: list[list[Tensor | None]], inputs: Inputs, options: Options, want_out: bool
) -> list[Tensor]:
    """What `Backend.backward` returns, from the gradients of each direction and, last, its output,
    all in scanning order."""
    names = (*Inputs._fields, "out")
    *gradients, out = (
        None
        if parts[0] is None
        else scanning_order(torch.stack(parts), options.reverse)
        if name in (*SEQUENCES, "out")
        else torch.stack(parts)
        for name, parts in zip(names, zip(*results, strict=True), strict=True)
    )
    return absent_as_empty(gradients, inputs, out if want_out else None)


def borders(inputs: Inputs, options: Options) -> Tensor:
    """Room for what a backend keeps for its backward pass, see `Backend.forward`."""
    r, b, length, d = inputs.u.shape
    count = (length - 1) // options.chunk_size
    return inputs.u.new_empty(r, b, count, inputs.A.shape[2], d, dtype=inputs.compute_dtype)
