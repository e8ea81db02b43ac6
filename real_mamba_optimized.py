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

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bsbimamba.recompute.mixer import Weights, mix
from bsbimamba.recompute.rows import Along, Checkpointing, along_time, check_checkpointing
from bsbimamba.recompute.weights import stacked
from bsbimamba.scan import selective_scan

__all__ = [
    "BidirectionalMambaBlock",
    "Checkpointing",
    "MambaBlock",
    "SelectiveSSM",
    "selective_scan",
]


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
        self.dt_proj.bias.full_precision = True  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        # What `training.muon` orthogonalises. The others set step sizes and the state's input.
        self.in_proj.weight.matrices = 2  # type: ignore[attr-defined]
        self.out_proj.weight.matrices = 1  # type: ignore[attr-defined]
        # softplus(dt_proj.bias) starts log-uniform in [dt_min, dt_max] (section 3.6).
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = math.log(dt_min), math.log(dt_max)
        step = torch.exp(torch.rand(self.d_inner) * (high - low) + low).clamp_min(1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus inverted

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return _mix(x, [self], checkpoint=False)


def _mix(
    x: Tensor,
    mixers: Sequence[SelectiveSSM],
    checkpoint: Checkpointing,
    norm: Any = None,
    along: Along = along_time,
    merge: nn.Linear | None = None,
) -> Tensor:
    """What one or two mixers of equal sizes make of norm(x), and `merge` of that. x, norm, along
    and what is returned: as in `in_pieces`.

    Two share every launch: the second one's direction is the opposite of the first one's. `merge`
    and their out_proj are one Linear after the other, and so one product with the product of the
    weights: (2 d, c) instead of 2 (d, c) and (2 c, c).
    """
    first, r = mixers[0], len(mixers)

    def of(parameter: Callable[[SelectiveSSM], Tensor | None]) -> list[Any]:
        return [parameter(mixer) for mixer in mixers]

    # Views whose backward passes take one operator, or none.
    halves = [mixer.in_proj.weight.unflatten(0, (2, -1)).unbind() for mixer in mixers]
    u, z, out, conv, conv_bias, selecting, dt = stacked(
        *zip(*halves, strict=True),
        of(lambda m: m.out_proj.weight.mT),
        of(lambda m: m.conv1d.weight.squeeze(1)),
        of(lambda m: m.conv1d.bias),
        of(lambda m: m.x_proj.weight),
        of(lambda m: m.dt_proj.weight),
    )
    A_log, D, dt_bias = stacked(
        of(lambda m: m.A_log), of(lambda m: m.D), of(lambda m: m.dt_proj.bias)
    )
    with torch.autocast(x.device.type, enabled=False):
        if merge is not None:
            out = torch.bmm(out, merge.weight.mT.unflatten(0, (r, -1)))
        A = -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float())
    weights = Weights(
        u=u.flatten(0, 1),
        z=z.flatten(0, 1),
        conv=conv,
        conv_bias=conv_bias,
        x=selecting,
        dt=dt,
        dt_bias=dt_bias,
        A=A,
        D=D,
        out=out.flatten(0, 1),
        out_bias=None if merge is None else merge.bias,
    )
    return mix(x, weights, checkpoint, first.chunk_size, first.reverse, norm, along)


class MambaBlock(nn.Module):
    """One direction of Mamba, checkpointed.

    use_checkpoint: False keeps all activations for the backward pass; True keeps the matrix
    products, and the scan's states at chunk borders; "full" keeps only the
    block's input. The rest is computed again (`recompute.mixer`); outputs and gradients are the
    same. Other arguments as in `SelectiveSSM`.
    """

    def __init__(
        self, d_model: int, use_checkpoint: Checkpointing = True, **ssm_options: Any
    ) -> None:
        super().__init__()
        self.use_checkpoint = check_checkpointing(use_checkpoint)
        self.ssm = SelectiveSSM(d_model, **ssm_options)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, c) to (b, l, c)."""
        return _mix(x, [self.ssm], self.use_checkpoint)


class BidirectionalMambaBlock(nn.Module):
    """A forward and a backward Mamba over the same input, joined by a Linear(2c → c).

    Takes and gives (b, l, c). Options as in `MambaBlock`. The two are computed side by side, in
    shared launches, from the parameters of their modules: hooks on those modules are not called.
    """

    def __init__(self, d_model: int, **options: Any) -> None:
        super().__init__()
        self.forward_mamba = MambaBlock(d_model, reverse=False, **options)
        self.backward_mamba = MambaBlock(d_model, reverse=True, **options)
        self.merge = nn.Linear(2 * d_model, d_model)
        self.merge.weight.matrices = 1  # type: ignore[attr-defined]
        self.use_checkpoint = self.forward_mamba.use_checkpoint

    def forward(self, x: Tensor, norm: Any = None, along: Along = along_time) -> Tensor:
        """(b, l, c) to (b, l, c); or features (k, b, t, c) to the same, by their sequences along
        time or bands. norm: a `network.bands.Norm` before it, whose output need not be kept."""
        mixers = [self.forward_mamba.ssm, self.backward_mamba.ssm]
        return _mix(x, mixers, self.use_checkpoint, norm, along, self.merge)
