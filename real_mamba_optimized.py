"""Mamba for this project: the selective state-space mixer, one direction of it, and both.

`SelectiveSSM` has the parameters of `mamba_ssm.Mamba`, name by name and shape by shape, so weights
go from one to the other; its recurrence is `scan.selective_scan`, in fp32 under autocast too.
`MambaBlock` adds the scanning direction and gradient checkpointing; `BidirectionalMambaBlock` is
two of them and the Linear that joins their outputs.

Shapes: `b` sequences, `l` scanned length, `c` channels, `d` inner width (expand * c), `n` state.
Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023
(arXiv:2312.00752); defaults and initialisation as in its section 3 and in state-spaces/mamba,
mamba_ssm/modules/mamba_simple.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from scan import causal_conv_silu, scan_directions, selective_scan

__all__ = ["BidirectionalMambaBlock", "MambaBlock", "SelectiveSSM", "selective_scan"]

Checkpointing = bool | Literal["full"]

# What a selective checkpoint keeps: the matrix products, dear to compute again. Everything else in
# a block (convolution, activations, gates, the scan) is recomputed from them.
_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


def _keep_products(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operator in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


class SelectiveSSM(nn.Module):
    """Mamba's mixer: projection, causal convolution, selective scan, gate, projection.

    Args:
        d_model: channels c of input and output.
        d_state: states n per inner channel.
        d_conv: taps of the depthwise convolution.
        expand: inner width d as a multiple of d_model.
        chunk_size: steps between the states that the scan's backward pass keeps.
        reverse: read the sequence from right to left; convolution and scan then look ahead.
        dt_min, dt_max: range in which the step sizes Δ start, log-uniformly.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        chunk_size: int = 64,
        reverse: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        self.d_state, self.chunk_size, self.reverse = d_state, chunk_size, reverse
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        # A = -n in every channel: "S4D-Real", section 3.6 of the paper.
        states = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(states.log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        for parameter in (self.A_log, self.D):
            # As in mamba_ssm; `training.optimizer` heeds it.
            parameter.no_weight_decay = True  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self._initialise_steps(dt_min, dt_max)

    def _initialise_steps(self, dt_min: float, dt_max: float) -> None:
        """Start softplus(dt_proj.bias) log-uniform in [dt_min, dt_max] (section 3.6)."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = math.log(dt_min), math.log(dt_max)
        step = torch.exp(torch.rand(self.d_inner) * (high - low) + low).clamp_min(1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus inverted

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return _mix(x, [self])[0]


def _mix(x: Tensor, mixers: list[SelectiveSSM]) -> Tensor:
    """What each of one or two mixers of equal sizes makes of x (b, l, c): (r, b, l, c).

    Two share every launch: the second one's direction is the opposite of the first one's.
    """
    first, r = mixers[0], len(mixers)
    b, length, _ = x.shape

    def stacked(parameter: Callable[[SelectiveSSM], Tensor]) -> Tensor:
        values = [parameter(mixer) for mixer in mixers]
        return torch.stack(values) if r > 1 else values[0][None]

    projected = F.linear(x, stacked(lambda m: m.in_proj.weight).flatten(0, 1))
    # Split before the directions come to the front: the gradients are then put together in place.
    u, z = (y.permute(2, 0, 1, 3) for y in projected.unflatten(-1, (r, 2, -1)).unbind(3))
    u = causal_conv_silu(
        u,
        stacked(lambda m: m.conv1d.weight[:, 0]),
        stacked(lambda m: cast(Tensor, m.conv1d.bias)),
        reverse=first.reverse,
    )
    selected = u.flatten(1, 2) @ stacked(lambda m: m.x_proj.weight).mT
    low_rank, B, C = selected.split([first.dt_rank, first.d_state, first.d_state], dim=-1)
    delta = low_rank @ stacked(lambda m: m.dt_proj.weight).mT
    y = scan_directions(
        u,
        delta.unflatten(1, (b, length)),
        -torch.exp(stacked(lambda m: m.A_log).float()),
        B.unflatten(1, (b, length)),
        C.unflatten(1, (b, length)),
        stacked(lambda m: m.D),
        z,
        stacked(lambda m: m.dt_proj.bias),
        delta_softplus=True,
        reverse=first.reverse,
        chunk_size=first.chunk_size,
    )
    out = y.flatten(1, 2) @ stacked(lambda m: m.out_proj.weight).mT
    return out.unflatten(1, (b, length))


class MambaBlock(nn.Module):
    """One direction of Mamba, checkpointed.

    use_checkpoint: False keeps all activations for the backward pass; True keeps the matrix
    products and recomputes the rest; "full" keeps only the block's input and recomputes all of it.
    The outputs and gradients are the same. Other arguments as in `SelectiveSSM`.
    """

    def __init__(
        self, d_model: int, use_checkpoint: Checkpointing = True, **ssm_options: Any
    ) -> None:
        super().__init__()
        if use_checkpoint not in (False, True, "full"):
            raise ValueError(
                f"use_checkpoint is {use_checkpoint!r}, expected False, True or 'full'"
            )
        self.use_checkpoint = use_checkpoint
        self.ssm = SelectiveSSM(d_model, **ssm_options)

    def _forward_impl(self, x: Tensor) -> Tensor:
        return self.ssm(x)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return _checkpointed(self._forward_impl, x, self.use_checkpoint)


def _checkpointed(function: Callable, x: Tensor, mode: Checkpointing) -> Tensor:
    if not (mode and torch.is_grad_enabled()):
        return function(x)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode != "full":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_products)
    # Autocast remembers its casts of leaves. The recomputation would make them anew, and so
    # be refused as another computation. Within a block none is needed twice.
    device = x.device.type
    with torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    ):
        return checkpoint(function, x, **options)


class BidirectionalMambaBlock(nn.Module):
    """A forward and a backward Mamba over the same input, joined by a Linear(2c → c).

    Takes and gives (b, l, c). Without normalisation or residual: those belong to the path that the
    block is put in (`bandsplit.path.PathBlock`). Options as in `MambaBlock`. The two are computed
    side by side, in shared launches, from the parameters of their modules: hooks on those modules
    are not called. What is checkpointed is `_forward_impl` of this block.
    """

    def __init__(self, d_model: int, **options: Any) -> None:
        super().__init__()
        self.forward_mamba = MambaBlock(d_model, reverse=False, **options)
        self.backward_mamba = MambaBlock(d_model, reverse=True, **options)
        self.merge = nn.Linear(2 * d_model, d_model)

    def _forward_impl(self, x: Tensor) -> Tensor:
        both = _mix(x, [self.forward_mamba.ssm, self.backward_mamba.ssm])
        return torch.cat(both.unbind(0), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return self.merge(_checkpointed(self._forward_impl, x, self.forward_mamba.use_checkpoint))
