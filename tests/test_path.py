"""Paths with norms over more than channels, against the same in PyTorch's own functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_path import plain_pair, plain_swiglu
from torch import Tensor

from abl3.mamba import CrossBandBiMamba, IntraBandBiMamba
from bsbimamba.network.bands import NORMS, Norm


def group_norm(norm: Norm, x: Tensor) -> Tensor:
    """Of (k, b, t, c): one group of all channels and bands, of a frame or of a recording."""
    if norm.dims == NORMS["recording"]:
        channels_first = x.permute(1, 3, 2, 0)
        normed = F.group_norm(channels_first, 1, norm.weight, norm.bias, norm.eps)
        return normed.permute(3, 0, 2, 1)
    frames = x.permute(1, 2, 3, 0).flatten(0, 1)
    normed = F.group_norm(frames, 1, norm.weight, norm.bias, norm.eps)
    return normed.unflatten(0, x.shape[1:3]).permute(3, 0, 1, 2)


@pytest.mark.parametrize("kind", ["frame", "recording"])
@pytest.mark.parametrize("path", [IntraBandBiMamba, CrossBandBiMamba])
@pytest.mark.parametrize("mode", [False, True, "full"])
def test_path_with_unfused_norms_equals_autograd(path: Any, mode: Any, kind: str) -> None:
    """Outputs and gradients, of norms with gains and offsets of their own."""
    torch.manual_seed(0)
    options = {"d_state": 4, "chunk_size": 8, "use_checkpoint": mode}
    block = path(16, kind, **options).double().block
    with torch.no_grad():
        for norm in (block.mixer_norm, block.feed_forward_norm):
            norm.weight.add_(0.3 * torch.randn(16))
            norm.bias.add_(0.3 * torch.randn(16))
    x = torch.randn(5, 2, 19, 16, dtype=torch.float64, requires_grad=True)

    def plain(x: Tensor) -> Tensor:
        x = x + block.along(
            lambda sequences: plain_pair(block.mixer, sequences, None),
            group_norm(block.mixer_norm, x),
        )
        return x + plain_swiglu(block.feed_forward, group_norm(block.feed_forward_norm, x), None)

    found = []
    for function in (block, plain):
        y = function(x)
        leaves = [x, *block.parameters()]
        found.append([y, *torch.autograd.grad((y * torch.linspace(-1, 1, 16)).sum(), leaves)])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [IntraBandBiMamba, CrossBandBiMamba])
def test_half_precision_is_near_to_single(path: Any) -> None:
    torch.manual_seed(0)
    block = path(32, "frame", d_state=4, chunk_size=8, use_checkpoint=True)
    x = torch.randn(5, 2, 19, 32)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = block(x.bfloat16())
    assert (got.float() - expected).norm() / expected.norm() < 0.02
