"""BSRNN as it is published: a Python loop over the bands in split and decoder.

Source: sungwon23/BSRNN (Yu and Luo, ICASSP 2023), N = 64, L = 5: time LSTMs before band LSTMs,
norms over the recording, and modules of its own for each band. Around it the signal path of
`bandsplit`, as for every network here, so that only the formulation differs from
`baseline --preset bsrnn_public`, which has the same parameters in batched products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bandsplit.bands import VARIANCE_FLOOR, WIDTHS
from bandsplit.decoder import TAPS
from bandsplit.stft import compressed
from baseline.bsrnn import BSRNN


class LoopedSplit(nn.Module):
    """Spectrum (b, f, t) to features (k, b, t, c), band by band."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, 2 * w, VARIANCE_FLOOR) for w in WIDTHS)
        self.linears = nn.ModuleList(nn.Conv1d(2 * width, channels, 1) for width in WIDTHS)

    def forward(self, spectrum: Tensor, statistics: None = None) -> Tensor:
        parts = torch.view_as_real(compressed(spectrum)).split(WIDTHS, dim=1)
        features = []
        for x, norm, linear in zip(parts, self.norms, self.linears, strict=True):
            features.append(linear(norm(rearrange(x, "b w t r -> b (w r) t"))))
        return rearrange(torch.stack(features), "k b c t -> k b t c")


class LoopedDecoder(nn.Module):
    """Features (k, b, t, c) to the filter (b, f, t, 3), band by band."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, channels),
                nn.Conv1d(channels, hidden, 1),
                nn.Tanh(),
                nn.Conv1d(hidden, 2 * width * TAPS * 2, 1),
            )
            for width in WIDTHS
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for band, width, decoder in zip(x, WIDTHS, self.decoders, strict=True):
            y = F.glu(decoder(band.mT), dim=1)
            parts.append(rearrange(y, "b (w tap r) t -> b w t tap r", w=width, tap=TAPS, r=2))
        taps = torch.view_as_complex(torch.cat(parts, dim=1).float().contiguous())
        return taps + taps.new_tensor([0, 1, 0])


class LoopedBSRNN(BSRNN):
    """The published size, unless told otherwise."""

    def __init__(self, num_layers: int = 5, channels: int = 64) -> None:
        super().__init__(num_layers, channels, norm="recording", time_first=True)
        self.split = LoopedSplit(channels)  # type: ignore[assignment]
        self.decoder = LoopedDecoder(channels, 4 * channels)  # type: ignore[assignment]
