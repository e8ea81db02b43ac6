"""BSRNN as sungwon23/BSRNN computes it: one band after the other, each with operators of its own.

Written anew from the facts of that code. Features are (b, c, t, k) here: batch, channels, frames,
bands.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baseline.bsrnn import BSRNN
from bsbimamba.network.bands import VARIANCE_FLOOR, WIDTHS, BandSplit
from bsbimamba.network.decoder import MaskDecoder
from bsbimamba.network.stft import compressed


class LoopedBSRNN(BSRNN):
    """The preset `bsrnn_public`: same arguments, names of parameters, and outputs."""

    def __init__(self, channels: int, **others: Any) -> None:
        super().__init__(channels=channels, **others)
        self.split = LoopedSplit(channels)
        self.layers = PublishedLayers(*self.layers.children())
        self.decoder = LoopedDecoder(channels, 4 * channels, "recording")


def per_band(modules: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    """Return weight (outputs, inputs) and bias of each band, of Linears or norms of neighbours."""
    return [(w.mT, b[0]) for x in modules for w, b in zip(x.weight, x.bias, strict=True)]


class LoopedSplit(BandSplit):
    """Complex spectrum (b, f, t) to features: of each band a group norm and a convolution."""

    def forward(self, spectrum: Tensor, statistics: Tensor | None = None) -> Tensor:
        # A CPU's group norm takes no gains that are shorter than the input, as autocast's are.
        x = torch.view_as_real(compressed(spectrum)).to(self.weight.dtype)
        parts = x.transpose(2, 3).split(WIDTHS, 1)  # (b, w, 2, t)
        gains, offsets = (y.split(WIDTHS) for y in (self.weight, self.bias))
        linears = per_band(self.linears)
        found = []
        for y, gain, offset, (weight, bias) in zip(parts, gains, offsets, linears, strict=True):
            y = F.group_norm(y.flatten(1, 2), 1, gain.flatten(), offset.flatten(), VARIANCE_FLOOR)
            found.append(F.conv1d(y, weight[..., None], bias))
        return torch.stack(found, -1)


class PublishedLayers(nn.Sequential):
    """All LSTMs along time, then all LSTMs along bands, from features to features."""

    def forward(self, x: Tensor) -> Tensor:
        # To (t, b, k, c) or (k, b, t, c), and back.
        orders = {"time": ((2, 0, 3, 1), (1, 3, 0, 2)), "band": ((3, 0, 2, 1), (1, 3, 2, 0))}
        for along, (there, back) in orders.items():
            for layer in self:
                norm, module = (getattr(layer, f"{along}_{part}") for part in ("norm", "lstm"))
                y = F.group_norm(x, 1, norm.weight, norm.bias).permute(there)
                z = module.output(module.lstm(y.flatten(1, 2))[0])
                x = x + z.unflatten(1, y.shape[1:3]).permute(back)
        return x


class LoopedDecoder(MaskDecoder):
    """Features to the filter: of each band a group norm, two Linears and a GLU."""

    def parts(self, x: Tensor) -> Tensor:
        own: list[Any] = list(self.decoders)
        modules = ([getattr(d, name) for d in own] for name in ("norm", "hidden", "output"))
        found = []
        for y, norm, hidden, output in zip(x.unbind(-1), *map(per_band, modules), strict=True):
            y = F.group_norm(y, 1, norm[0].flatten(), norm[1]).mT
            y = F.glu(F.linear(torch.tanh(F.linear(y, *hidden)), *output), dim=-1)
            found.append(y.unflatten(-1, (-1, 3, 2)).transpose(1, 2))
        return torch.cat(found, 1)
