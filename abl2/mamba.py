"""The sequence models of this ablation: bidirectional Mamba within each band and across bands."""

from typing import Any

from bsbimamba.network.bands import DEFAULT_NORM
from bsbimamba.network.path import Path, along_bands, along_time
from real_mamba_optimized import BidirectionalMambaBlock


class IntraBandBiMamba(Path):
    """The time path: each band's frames as one sequence. (k, b, t, c) to the same."""

    def __init__(self, channels: int, norm: str = DEFAULT_NORM, **options: Any) -> None:
        super().__init__(channels, BidirectionalMambaBlock(channels, **options), along_time, norm)


class CrossBandBiMamba(Path):
    """The band path: each frame's bands as one sequence. (k, b, t, c) to the same."""

    def __init__(self, channels: int, norm: str = DEFAULT_NORM, **options: Any) -> None:
        super().__init__(channels, BidirectionalMambaBlock(channels, **options), along_bands, norm)
