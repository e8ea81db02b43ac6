"""The sequence models of this ablation: bidirectional Mamba within each band."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bsbimamba.network.bands import DEFAULT_NORM
from bsbimamba.network.path import PathBlock, along_time
from real_mamba_optimized import BidirectionalMambaBlock


class IntraBandBiMamba(nn.Module):
    """The time path: each band's frames as one sequence. (k, b, t, c) to the same."""

    def __init__(self, channels: int, norm: str = DEFAULT_NORM, **options: Any) -> None:
        super().__init__()
        mixer = BidirectionalMambaBlock(channels, **options)
        self.block = PathBlock(channels, mixer, along_time, mixer.use_checkpoint, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)
