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
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from scan import selective_scan

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
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self._convolve(u))
        low_rank, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = selective_scan(
            u,
            F.linear(low_rank, self.dt_proj.weight),
            -torch.exp(self.A_log.float()),
            B,
            C,
            self.D,
            z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            reverse=self.reverse,
            chunk_size=self.chunk_size,
        )
        return self.out_proj(y)

    def _convolve(self, u: Tensor) -> Tensor:
        """The depthwise convolution over l of u (b, l, d), looking back (ahead, if reversed).

        As a two-dimensional one on a channels-last view it needs no transposed copy, and runs
        several times faster on a CPU than conv1d.
        """
        weight = self.conv1d.weight[:, :, None]  # (d, 1, 1, taps)
        reach = weight.shape[-1] - 1
        if self.reverse:
            padded, weight = F.pad(u, (0, 0, 0, reach)), weight.flip(-1)
        else:
            padded = F.pad(u, (0, 0, reach, 0))
        image = padded.transpose(1, 2)[:, :, None]  # (b, d, 1, l + reach)
        out = F.conv2d(image, weight, self.conv1d.bias, groups=self.d_inner)
        return out[:, :, 0].transpose(1, 2)


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
        if not (self.use_checkpoint and torch.is_grad_enabled()):
            return self._forward_impl(x)
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        if self.use_checkpoint != "full":
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
            return checkpoint(self._forward_impl, x, **options)


class BidirectionalMambaBlock(nn.Module):
    """A forward and a backward Mamba over the same input, joined by a Linear(2c → c).

    Takes and gives (b, l, c). Without normalisation or residual: those belong to the path that the
    block is put in (`bandsplit.path.PathBlock`). Options as in `MambaBlock`.
    """

    def __init__(self, d_model: int, **options: Any) -> None:
        super().__init__()
        self.forward_mamba = MambaBlock(d_model, reverse=False, **options)
        self.backward_mamba = MambaBlock(d_model, reverse=True, **options)
        self.merge = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return self.merge(torch.cat([self.forward_mamba(x), self.backward_mamba(x)], dim=-1))
