"""The network of this ablation: time path, band path, adaptive decoder."""

from typing import Any

from torch import nn

from abl3.mamba import CrossBandBiMamba, IntraBandBiMamba, MaskDecoderAdaptive
from bsbimamba.network.bands import DEFAULT_NORM
from bsbimamba.network.net import BandSplitNet
from real_mamba_optimized import Checkpointing


class MBSNet(BandSplitNet):
    """Band-split bidirectional Mamba. Without arguments, the network of the README's table.

    Args:
        num_layers: how often the paths are repeated.
        d_state, chunk_size, use_checkpoint, expand, d_conv: see `real_mamba_optimized`.
        channels: features of each band.
        hidden: decoder widths of the low, middle and high bands.
        norm: see `Norm` in `network.bands`.
    """

    def __init__(
        self,
        num_layers: int = 1,
        d_state: int = 16,
        chunk_size: int = 64,
        use_checkpoint: Checkpointing = True,
        channels: int = 192,
        expand: int = 2,
        d_conv: int = 4,
        hidden: tuple[int, int, int] = (24, 32, 36),
        norm: str = DEFAULT_NORM,
    ) -> None:
        options: dict[str, Any] = {
            "d_state": d_state,
            "chunk_size": chunk_size,
            "use_checkpoint": use_checkpoint,
            "expand": expand,
            "d_conv": d_conv,
        }
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            layers.append(IntraBandBiMamba(channels, norm, **options))
            layers.append(CrossBandBiMamba(channels, norm, **options))
        decoder = MaskDecoderAdaptive(channels, hidden, norm)
        super().__init__(channels, nn.Sequential(*layers), decoder)
