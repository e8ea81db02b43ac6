"""What every backend of the scan takes and gives."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Inputs(NamedTuple):
    """The tensors of `scan.selective_scan`, in its shapes and of one dtype; None where absent."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None


class Options(NamedTuple):
    """How to scan them."""

    delta_softplus: bool
    reverse: bool
    chunk_size: int


class Backend(Protocol):
    """A module with these two functions. No output may alias an input or another output."""

    def forward(self, inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
        """The output (b, l, d), the last state (b, d, n), and what the backward pass needs.

        That is the state with which each chunk but the first begins, in scanning order:
        (b, ceil(l / chunk) - 1, n, d).
        """

    def backward(
        self,
        grad_out: Tensor,
        grad_last: Tensor | None,
        inputs: Inputs,
        borders: Tensor,
        options: Options,
    ) -> list[Tensor]:
        """The gradient of each input, in the order of `Inputs`; of size 0 for an absent one."""
