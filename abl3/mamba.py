"""The sequence models of this ablation, those of ablation 2, and its decoder."""

from typing import Any

from bsbimamba.network.bands import DEFAULT_NORM, WIDTHS
from bsbimamba.network.decoder import MaskDecoder
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


class MaskDecoderAdaptive(MaskDecoder):
    """A decoder whose width follows what a band must produce. (k, b, t, c) to (b, f, t, 3).

    hidden: widths for the low bands (2 or 3 bins, up to 18 real filter coefficients a frame), the
    middle ones (8 bins, 48 coefficients) and the high ones (16 or 17 bins, up to 102).
    """

    def __init__(
        self, channels: int, hidden: tuple[int, int, int], norm: str = DEFAULT_NORM
    ) -> None:
        low, middle, high = hidden
        widths = [low if w <= 3 else middle if w <= 8 else high for w in WIDTHS]
        super().__init__(channels, widths, norm)
