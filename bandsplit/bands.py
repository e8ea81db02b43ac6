"""The 31 bands: where they lie, Linears with weights of their own for each, and the split.

Bands of equal width are neighbours and are computed as one batched product; there are five widths.
Features are (k, b, t, c): bands, batch, frames, channels. So laid out, the products of split and
decoder, one for each band, and both paths find them as they are, without a transposed copy.
Source of the widths: Yu and Luo, "Efficient Monaural Speech Enhancement with Universal Sample Rate
Band-Split RNN", ICASSP 2023, in the 16-kHz setting of sungwon23/BSRNN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bandsplit.stft import BINS, compressed

WIDTHS = (2, *[3] * 10, *[8] * 12, *[16] * 7, 17)  # bins
BANDS = len(WIDTHS)
assert sum(WIDTHS) == BINS


@dataclass(frozen=True)
class Group:
    """Neighbouring bands that share all their sizes, and so one batched product."""

    bands: slice
    bins: slice
    width: int  # bins in each band
    hidden: int  # whatever else is sized band by band; 0 where nothing is

    @property
    def count(self) -> int:
        return self.bands.stop - self.bands.start


def groups(hidden: Sequence[int] = (0,) * BANDS) -> Iterator[Group]:
    """The bands in runs of equal width and equal `hidden`, from low to high."""
    if len(hidden) != BANDS:
        raise ValueError(
            f"{len(hidden)} hidden widths given, expected one for each of {BANDS} bands"
        )
    band = bin_ = 0
    for (width, size), run in groupby(zip(WIDTHS, hidden, strict=True)):
        count = len(list(run))
        bands, bins = slice(band, band + count), slice(bin_, bin_ + count * width)
        yield Group(bands, bins, width, size)
        band, bin_ = bands.stop, bins.stop


class BandLinear(nn.Module):
    """`bands` Linears side by side: (k, m, inputs) to (k, m, outputs), m any number of rows.

    Each is initialised as `nn.Linear(inputs, outputs)` is.
    """

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(bands, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(bands, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def standardised(x: Tensor, dims: int, eps: float = 1e-5) -> Tensor:
    """x less its mean and over its standard deviation, both over its last `dims` dimensions, one of
    which is the frames'."""
    if torch.compiler.is_exporting():
        # `layer_norm` would fix the number of frames to that of the example.
        x = x - _mean(x, dims)
        return x * torch.rsqrt(_mean(x.square(), dims) + eps)
    # Autocast would make copies in float32 first. The statistics are of that precision anyway.
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, x.shape[-dims:], eps=eps)


def _mean(x: Tensor, dims: int) -> Tensor:
    """Over the last `dims` dimensions, one by one: onnxruntime adds up a million numbers badly."""
    for dim in range(1, dims + 1):
        x = x.mean(-dim, keepdim=True)
    return x


class Norm(nn.Module):
    """Normalisation of (k, b, t, c) with a gain and an offset for each channel.

    over_frames: False takes the statistics over channels only, so that a piece of a recording and
    the whole agree; True takes them over channels × frames (the published BSRNN's GroupNorm).
    bands: give each of so many bands gains and offsets of its own.
    """

    def __init__(self, channels: int, bands: int | None = None, over_frames: bool = False) -> None:
        super().__init__()
        shape = (channels,) if bands is None else (bands, 1, channels)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.over_frames = over_frames
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1 and not self.over_frames:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if weight.dim() > 1:
            weight, bias = weight[:, None], bias[:, None]
        if self.over_frames:
            return standardised(x, 2, self.eps) * weight + bias
        return F.layer_norm(x, x.shape[-1:], eps=self.eps) * weight + bias


class BandSplit(nn.Module):
    """Complex spectrum (b, f, t) to features (k, b, t, c).

    Real and imaginary part of the compressed spectrum X |X|^-0.7, a gain and an offset for each of
    the two in each bin, then a Linear to c channels for each band. over_frames: normalise each band
    over its bins × frames before that, as the published BSRNN does.
    """

    def __init__(self, channels: int, over_frames: bool = False) -> None:
        super().__init__()
        self.over_frames = over_frames
        self.weight = nn.Parameter(torch.ones(BINS, 1, 2))
        self.bias = nn.Parameter(torch.zeros(BINS, 1, 2))
        self.groups = list(groups())
        self.linears = nn.ModuleList(
            BandLinear(group.count, 2 * group.width, channels) for group in self.groups
        )
        for group, linear in zip(self.groups, self.linears, strict=True):
            linear.weight.matrices = group.count  # type: ignore[union-attr]

    def forward(self, spectrum: Tensor) -> Tensor:
        return self.of_parts(torch.view_as_real(compressed(spectrum)))

    def of_parts(self, features: Tensor) -> Tensor:
        """The compressed spectrum's real and imaginary parts (b, f, t, 2) to (k, b, t, c)."""
        b = features.shape[0]
        outputs = []
        for group, linear in zip(self.groups, self.linears, strict=True):
            x = features[:, group.bins]
            if self.over_frames:
                bands = rearrange(x, "b (k w) t r -> b k (w t r)", w=group.width)
                x = standardised(bands, 1).reshape(x.shape)
            x = x * self.weight[group.bins] + self.bias[group.bins]
            x = rearrange(x, "b (k w) t r -> k (b t) (w r)", w=group.width)
            outputs.append(linear(x))
        return rearrange(torch.cat(outputs), "k (b t) c -> k b t c", b=b)
