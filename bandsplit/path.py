"""Paths: how a sequence model is applied along time or along bands of features (b, k, t, c)."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bandsplit.bands import Norm


def along_time(model: nn.Module, x: Tensor) -> Tensor:
    """Apply `model`, (sequences, length, c) to the same, to the frames of each band of x."""
    y = model(rearrange(x, "b k t c -> (b k) t c"))
    return rearrange(y, "(b k) t c -> b k t c", k=x.shape[1])


def along_bands(model: nn.Module, x: Tensor) -> Tensor:
    """Apply `model`, (sequences, length, c) to the same, to the bands of each frame of x."""
    y = model(rearrange(x, "b k t c -> (b t) k c"))
    return rearrange(y, "(b t) k c -> b k t c", t=x.shape[2])


class SwiGLU(nn.Module):
    """The gated feed-forward of Shazeer, "GLU Variants Improve Transformer", 2020, equation 6."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(channels, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.output(F.silu(gate) * value)


class PathBlock(nn.Module):
    """A sequence model and a feed-forward, each behind a LayerNorm and beside a residual.

    Takes and gives (sequences, length, c). `mixer` is any module from that shape to that shape.
    """

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer_norm = Norm(channels)
        self.mixer = mixer
        self.feed_forward_norm = Norm(channels)
        self.feed_forward = SwiGLU(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))
