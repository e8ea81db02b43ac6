"""The 31 bands: where they lie, Linears with weights of their own for each, and the split.

Bands of equal width are neighbours and are computed as one batched product; there are five widths.
Features are (k, b, t, c): bands, batch, frames, channels. So laid out, the products of split and
decoder, one for each band, and both paths find them as they are, without a transposed copy.
Source of the widths: Yu and Luo, "Efficient Monaural Speech Enhancement with Universal Sample Rate
Band-Split RNN", ICASSP 2023, in the 16-kHz setting of sungwon23/BSRNN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from bsbimamba.network.stft import BINS, compressed

WIDTHS = (2, *[3] * 10, *[8] * 12, *[16] * 7, 17)  # bins
BANDS = len(WIDTHS)
assert sum(WIDTHS) == BINS

# By the name of a norm, the dimensions of (k, b, t, c) over which it takes its statistics.
NORMS = {"channel": (3,), "frame": (0, 3), "recording": (0, 2, 3)}
DEFAULT_NORM = "frame"
# A band's variance in the split is at least this, 75 dB below the recording's loudness. What a
# band-limited recording has in an empty band is not raised to the level of speech.
VARIANCE_FLOOR = 0.01


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


def standardised(x: Tensor, dims: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Return x less its mean and over its standard deviation, both taken over `dims`."""
    if torch.compiler.is_exporting():
        # `layer_norm` would fix the number of frames to that of the example.
        x = x - _mean(x, dims)
        return x * torch.rsqrt(_mean(x.square(), dims) + eps)
    order = [dim for dim in range(x.dim()) if dim not in dims] + list(dims)
    sizes = [x.shape[dim] for dim in dims]
    # Autocast would make copies in float32 first. The statistics are of that precision anyway.
    with torch.autocast(x.device.type, enabled=False):
        y = F.layer_norm(x.permute(order), sizes, eps=eps)
    return y.permute([order.index(dim) for dim in range(x.dim())])


def _mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Over `dims`, one by one: onnxruntime adds up a million numbers badly."""
    for dim in reversed(dims):
        x = x.mean(dim, keepdim=True)
    return x


class Norm(nn.Module):
    """Normalise (k, b, t, c), with a gain and an offset for each channel.

    Args:
        channels: c.
        kind: "channel" takes the statistics over channels, "frame" over the channels and bands of
            a frame, "recording" over channels, frames and bands (the published BSRNN's GroupNorm).
            With the first two, a piece of a recording and the whole agree.
        bands: give each of so many bands statistics, gains and offsets of its own.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(self, channels: int, kind: str = DEFAULT_NORM, bands: int | None = None) -> None:
        super().__init__()
        if kind not in NORMS:
            raise ValueError(f"norm is {kind!r}, expected one of {', '.join(map(repr, NORMS))}")
        shape = (channels,) if bands is None else (bands, 1, channels)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.dims = tuple(dim for dim in NORMS[kind] if bands is None or dim > 0)
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        if self.dims == (3,) and self.weight.dim() == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        # A band's own are (k, 1, c), the common ones (c).
        weight, bias = (p.unsqueeze(-2) for p in (self.weight, self.bias))
        y = standardised(x, self.dims, self.eps) * weight + bias
        return y.to(x.dtype)  # under autocast, an LSTM takes no other


def band_statistics(features: Tensor) -> Tensor:
    """Compute each band's mean and deviation (b, 31, 2) over the bins, frames and parts of features
    (b, f, t, 2). The deviation is the root of the variance plus `VARIANCE_FLOOR`."""
    return of_sums(band_sums(features), features.shape[2]).to(features.dtype)


def band_sums(features: Tensor) -> Tensor:
    """Compute each band's means over its bins of features (b, f, t, 2) and of their squares, summed
    over frames and parts: (b, 31, 2), in float64.

    The sums of a recording's blocks of frames add up to those of the recording.
    """
    powers = (features, features.square())
    bins = torch.stack([x.sum((2, 3), dtype=torch.float64) for x in powers], -1)
    bands = [bins[:, g.bins].unflatten(1, (g.count, g.width)).mean(2) for g in groups()]
    return torch.cat(bands, 1)


def of_sums(sums: Tensor, frames: int) -> Tensor:
    """Compute `band_statistics` (b, 31, 2) from `band_sums` over so many frames."""
    mean, power = (sums / (2 * frames)).unbind(-1)
    return torch.stack([mean, (power - mean.square() + VARIANCE_FLOOR).sqrt()], -1)


class BandSplit(nn.Module):
    """Complex spectrum (b, f, t) to features (k, b, t, c).

    Real and imaginary part of the compressed spectrum X |X|^-0.7, a gain and an offset for each of
    the two in each bin, then a Linear to c channels for each band. split_norm: standardise each
    band before that, by its statistics over bins × frames, as the published BSRNN does.
    """

    def __init__(self, channels: int, split_norm: bool = True) -> None:
        super().__init__()
        self.split_norm = split_norm
        self.weight = nn.Parameter(torch.ones(BINS, 1, 2))
        self.bias = nn.Parameter(torch.zeros(BINS, 1, 2))
        self.groups = list(groups())
        self.linears = nn.ModuleList(
            BandLinear(group.count, 2 * group.width, channels) for group in self.groups
        )
        for group, linear in zip(self.groups, self.linears, strict=True):
            linear.weight.matrices = group.count  # type: ignore[union-attr]

    def forward(self, spectrum: Tensor, statistics: Tensor | None = None) -> Tensor:
        """statistics: `band_statistics` of the recording that the spectrum is a piece of; without
        them, those of the spectrum are taken."""
        return self.of_parts(torch.view_as_real(compressed(spectrum)), statistics)

    def of_parts(self, features: Tensor, statistics: Tensor | None = None) -> Tensor:
        """The compressed spectrum's real and imaginary parts (b, f, t, 2) to (k, b, t, c)."""
        b = features.shape[0]
        if not self.split_norm:
            statistics = None
        elif statistics is None:
            statistics = band_statistics(features)
        outputs = []
        for group, linear in zip(self.groups, self.linears, strict=True):
            x = features[:, group.bins]
            if statistics is not None:
                mean, deviation = repeat(
                    statistics[:, group.bands], "b k s -> s b (k w) 1 1", w=group.width
                )
                x = (x - mean) / deviation
            x = x * self.weight[group.bins] + self.bias[group.bins]
            x = rearrange(x, "b (k w) t r -> k (b t) (w r)", w=group.width)
            outputs.append(linear(x))
        return rearrange(torch.cat(outputs), "k (b t) c -> k b t c", b=b)
