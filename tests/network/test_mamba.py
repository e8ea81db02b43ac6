"""Mamba's module against an independent implementation, and what the blocks around it promise."""

import copy

import pytest
import torch
from torch import nn

from real_mamba_optimized import BidirectionalMambaBlock, MambaBlock, SelectiveSSM


def transformers_mixer(ssm: SelectiveSSM, channels: int) -> nn.Module:
    """The slow path of the library's mixer, with the weights of `ssm`, named as in mamba-ssm."""
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = mamba.MambaConfig(
        hidden_size=channels,
        state_size=ssm.d_state,
        conv_kernel=ssm.conv1d.kernel_size[0],
        expand=ssm.d_inner // channels,
        time_step_rank=ssm.dt_rank,
        num_hidden_layers=1,
        use_bias=False,
        use_mambapy=False,
    )
    mixer = mamba.MambaMixer(config, layer_idx=0).eval()
    mixer.load_state_dict(ssm.state_dict())
    return mixer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [1, 3, 31, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_equals_transformers_slow_path(length: int, dtype: torch.dtype) -> None:
    block = MambaBlock(48, d_state=16, chunk_size=16).to(dtype)
    mixer = transformers_mixer(block.ssm, 48).to(dtype)
    x = torch.randn(2, length, 48, dtype=dtype, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    mine, theirs = block(x), mixer(other)
    # In float64 their scan still casts its input term to float32.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-6
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    probe = torch.randn_like(mine)
    mine.backward(probe)
    theirs.backward(probe)
    torch.testing.assert_close(x.grad, other.grad, rtol=10 * tolerance, atol=10 * tolerance)
    gradients = dict(mixer.named_parameters())
    for name, parameter in block.ssm.named_parameters():
        scale = gradients[name].grad.abs().max().item()
        torch.testing.assert_close(
            parameter.grad, gradients[name].grad, rtol=0, atol=20 * tolerance * scale, msg=name
        )


def test_initialisation_is_the_papers() -> None:
    ssm = SelectiveSSM(192)
    torch.testing.assert_close(ssm.A_log.exp(), torch.arange(1.0, 17).expand(384, 16))
    assert torch.equal(ssm.D, torch.ones(384))
    step = nn.functional.softplus(ssm.dt_proj.bias)
    assert step.min() >= 1e-3 * 0.999
    assert step.max() <= 1e-1 * 1.001
    # Log-uniform: a third of the range's logarithm below 10^-2.33, and so on.
    thirds = torch.histc(step.log10(), 3, -3, -1) / 384
    assert ((thirds > 0.25) & (thirds < 0.42)).all()
    assert ssm.dt_proj.weight.abs().max() <= 12**-0.5


def test_a_log_and_d_are_not_decayed() -> None:
    marked = {
        name for name, p in SelectiveSSM(32).named_parameters() if hasattr(p, "no_weight_decay")
    }
    assert marked == {"A_log", "D"}


def swapped(block: BidirectionalMambaBlock) -> BidirectionalMambaBlock:
    """The same weights with the roles of the two directions exchanged."""
    other = copy.deepcopy(block)
    other.forward_mamba.load_state_dict(block.backward_mamba.state_dict())
    other.backward_mamba.load_state_dict(block.forward_mamba.state_dict())
    with torch.no_grad():
        other.merge.weight.copy_(block.merge.weight.roll(block.merge.out_features, 1))
    return other


def test_both_directions_commute_with_time_reversal() -> None:
    block = BidirectionalMambaBlock(24)
    x = torch.randn(2, 33, 24)
    torch.testing.assert_close(block(x).flip(1), swapped(block)(x.flip(1)))
