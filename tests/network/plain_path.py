"""A path of the networks in plain PyTorch with autograd: the reference of `recompute`."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from bsbimamba.network.bands import NORMS, Norm
from bsbimamba.network.path import SwiGLU
from bsbimamba.recompute.rows import Along, along_bands
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


def plain_norm(norm: Norm | None, x: Tensor) -> Tensor:
    """Apply `F.layer_norm` over channels, or `F.group_norm` to one group of all channels and bands,
    of a frame or of a recording: (k, b, t, c) to the same."""
    if norm is None:
        return x
    if norm.dims == NORMS["channel"]:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    frames = x if norm.dims == NORMS["recording"] else rearrange(x, "k b t c -> k (b t) 1 c")
    y = rearrange(frames, "k b t c -> b c t k")
    y = F.group_norm(y, 1, norm.weight, norm.bias, norm.eps)
    return rearrange(y, "b c t k -> k b t c").reshape(x.shape)


def plain_pair(
    block: BidirectionalMambaBlock, x: Tensor, norm: Norm | None, along: Along
) -> Tensor:
    """Apply both directions and the Linear behind them to the frames of each band of norm(x), or to
    the bands of each frame: (k, b, t, c) to the same."""
    k, b, *_ = x.shape
    to, back = "k b t c -> (k b) t c", "(k b) t c -> k b t c"
    if along is along_bands:
        to, back = "k b t c -> (b t) k c", "(b t) k c -> k b t c"
    x = rearrange(plain_norm(norm, x), to)
    both = [plain_mixer(one.ssm, x) for one in (block.forward_mamba, block.backward_mamba)]
    y = F.linear(torch.cat(both, -1), block.merge.weight, block.merge.bias)
    return rearrange(y, back, k=k, b=b)


def plain_swiglu(module: SwiGLU, x: Tensor, norm: Norm | None) -> Tensor:
    """Apply the feed-forward to norm(x), (k, b, t, c) to the same."""
    gate, value = F.linear(plain_norm(norm, x), module.gate_and_value.weight).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * value, module.output.weight)
