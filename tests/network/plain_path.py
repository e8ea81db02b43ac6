"""A path of the networks in plain PyTorch with autograd: the reference of `recompute`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.network.bands import Norm
from bsbimamba.network.path import SwiGLU
from bsbimamba.scan import selective_scan
from real_mamba_optimized import BidirectionalMambaBlock, SelectiveSSM


def plain_mixer(ssm: SelectiveSSM, x: Tensor) -> Tensor:
    """Compute Mamba's mixer (Gu and Dao, figure 3) by the reference scan, (b, l, c) kept."""
    u, z = F.linear(x, ssm.in_proj.weight).chunk(2, dim=-1)
    u = u.flip(1) if ssm.reverse else u
    taps = ssm.conv1d.kernel_size[0]
    padded = F.pad(u.mT, (taps - 1, 0))
    u = F.silu(F.conv1d(padded, ssm.conv1d.weight, ssm.conv1d.bias, groups=ssm.d_inner)).mT
    u = u.flip(1) if ssm.reverse else u
    factor, B, C = F.linear(u, ssm.x_proj.weight).split([ssm.dt_rank, ssm.d_state, ssm.d_state], -1)
    y = selective_scan(
        u, F.linear(factor, ssm.dt_proj.weight), -torch.exp(ssm.A_log), B, C, ssm.D, z,
        ssm.dt_proj.bias, delta_softplus=True, reverse=ssm.reverse, backend="reference",
    )  # fmt: skip
    assert isinstance(y, Tensor)
    return F.linear(y, ssm.out_proj.weight)


def plain_pair(block: BidirectionalMambaBlock, x: Tensor, norm: Norm | None) -> Tensor:
    """Apply both directions and the Linear behind them to norm(x), (b, l, c) to the same."""
    x = x if norm is None else F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)
    both = [plain_mixer(one.ssm, x) for one in (block.forward_mamba, block.backward_mamba)]
    return F.linear(torch.cat(both, -1), block.merge.weight, block.merge.bias)


def plain_swiglu(module: SwiGLU, x: Tensor, norm: Norm | None) -> Tensor:
    """Apply the feed-forward to norm(x), (..., c) to the same."""
    x = x if norm is None else F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias)
    gate, value = F.linear(x, module.gate_and_value.weight).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * value, module.output.weight)
