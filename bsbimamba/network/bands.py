"""The 31 bands: where they lie, Linears with weights of their own for each, norms, and the split.

Features are (k, b, t, c): bands, batch, frames, channels. So laid out, the products of split and
decoder and both paths find them as they are, without a transposed copy.
Source of the widths: Yu and Luo, "Efficient Monaural Speech Enhancement with Universal Sample Rate
Band-Split RNN", ICASSP 2023, in the 16-kHz setting of sungwon23/BSRNN.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from bsbimamba.network.stft import BINS, compressed
from bsbimamba.recompute.rows import layer_norm
from bsbimamba.recompute.weights import padded

WIDTHS = (2, *[3] * 10, *[8] * 12, *[16] * 7, 17)  # bins
BANDS, WIDEST = len(WIDTHS), max(WIDTHS)
assert sum(WIDTHS) == BINS

# All bands are computed as one batched product, for which each has as many places as the widest
# one has bins. A band's bins lie in the first of them. The others hold its first bin again, with
# weights that are 0.
_WIDTH, _OFFSET = torch.tensor(WIDTHS)[:, None], torch.arange(WIDEST)
_IS_BIN = _OFFSET < _WIDTH
BIN_OF_PLACE = (_WIDTH.cumsum(0) - _WIDTH + _OFFSET * _IS_BIN).flatten()  # (31 * 17)
PLACE_OF_BIN = _IS_BIN.flatten().nonzero().flatten()  # (257)

# By the name of a norm, the dimensions of (k, b, t, c) over which it takes its statistics.
NORMS = {"channel": (3,), "frame": (0, 3), "recording": (0, 2, 3)}
DEFAULT_NORM = "frame"
# A band's variance in the split is at least this, 75 dB below the recording's loudness. What a
# band-limited recording has in an empty band is not raised to the level of speech.
VARIANCE_FLOOR = 0.01


class BandLinear(nn.Module):
    """The weights of the Linears, one for each of `bands` neighbours, from `inputs` to `outputs`.

    Each is initialised as `nn.Linear(inputs, outputs)` is. The Linears of all bands are computed as
    one product, with weights that `recompute.weights.padded` puts together.
    """

    def __init__(self, bands: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(bands, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(bands, 1, outputs).uniform_(-bound, bound))


def affine_linear(x: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return (x gain + offset) weight + bias for each band: (k, m, i) to (k, m, o).

    gain, offset (k, 1, i) are applied to the Linear's weight (k, i, o) and bias (k, 1, o), which
    are smaller than x. Nothing but x is kept for the backward pass.
    """
    return torch.baddbmm(torch.baddbmm(bias, offset, weight), x, gain.mT * weight)


def select(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Return x.index_select(1, index), where `inverse` is the index of the way back.

    index: `BIN_OF_PLACE` and inverse: `PLACE_OF_BIN`, or the other way round. Gradients of places
    that are no bin are those of a band's first bin, and come to nothing: their weights are 0.
    """
    return _Select.apply(x, index, inverse)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return x.index_select(1, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(1, ctx.inverse), None, None


def runs(*sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return runs of bands that have all sizes in common, as (count, size, ...), from low to high.

    Raises ValueError where lengths differ.
    """
    return [(len(list(run)), *each) for each, run in groupby(zip(*sizes, strict=True))]


class Norm(nn.Module):
    """Normalise (k, b, t, c), with a gain and an offset for each channel.

    Args:
        channels: c.
        kind: "channel" takes the statistics over channels, "frame" over the channels and bands of
            a frame, "recording" over channels, frames and bands (the published BSRNN's GroupNorm).
            With the first two, a piece of a recording and the whole agree.
        bands: the gains and offsets (bands, 1, c) of so many bands, each with its own statistics.
            `network.decoder` computes with them.

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
        return layer_norm(x, self.dims, self.eps, self.weight, self.bias)[0]


def band_statistics(features: Tensor) -> Tensor:
    """Compute each band's mean and deviation (b, 31, 2) over the bins, frames and parts of features
    (b, f, t, 2). The deviation is the root of the variance plus `VARIANCE_FLOOR`."""
    return of_sums(band_sums(features), features.shape[2]).to(features.dtype)


def band_sums(features: Tensor) -> Tensor:
    """Compute each band's means over its bins of features (b, f, t, 2) and of their squares, summed
    over frames and parts: (b, 31, 2), in float64.

    The sums of a recording's blocks of frames add up to those of the recording.
    """
    powers = torch.stack([features, features.square()])
    bins = powers.sum((3, 4), dtype=torch.float64)
    return (bins @ _band_means(features.device)).permute(1, 2, 0)


@cache
def _band_means(device: torch.device) -> Tensor:
    """Return the matrix (257, 31) that takes the mean of each band's bins."""
    widths = torch.tensor(WIDTHS)
    means = torch.eye(BANDS, dtype=torch.float64) / widths
    return means.repeat_interleave(widths, 0, output_size=BINS).to(device)


def of_sums(sums: Tensor, frames: int) -> Tensor:
    """Compute `band_statistics` (b, 31, 2) from `band_sums` over so many frames."""
    mean, power = (sums / (2 * frames)).unbind(-1)
    variance = torch.addcmul(power, mean, mean, value=-1)
    return torch.stack([mean, (variance + VARIANCE_FLOOR).sqrt()], -1)


class BandSplit(nn.Module):
    """Turn a complex spectrum (b, f, t) into features (k, b, t, c).

    Real and imaginary part of the compressed spectrum X |X|^-0.7, each band standardised by its
    statistics over bins × frames, as in the published BSRNN; a gain and an offset for each of the
    two parts in each bin; then a Linear to c channels for each band.
    """

    bin_of_place: Tensor
    place_of_bin: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(BINS, 1, 2))
        self.bias = nn.Parameter(torch.zeros(BINS, 1, 2))
        self.linears = nn.ModuleList(
            BandLinear(count, 2 * width, channels) for count, width in runs(WIDTHS)
        )
        for linear in self.linears:
            linear.weight.matrices = len(linear.weight)  # type: ignore[union-attr,arg-type]
        self.register_buffer("bin_of_place", BIN_OF_PLACE, persistent=False)
        self.register_buffer("place_of_bin", PLACE_OF_BIN, persistent=False)

    def forward(self, spectrum: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Compute the features.

        statistics: `band_statistics` of the recording that the spectrum is a piece of; without
        them, those of the spectrum are taken.
        """
        return self.of_parts(torch.view_as_real(compressed(spectrum)), statistics)

    def of_parts(self, features: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Compute them from real and imaginary parts (b, f, t, 2) of the compressed spectrum."""
        x = features.index_select(1, self.bin_of_place).unflatten(1, (BANDS, -1))
        statistics = band_statistics(features) if statistics is None else statistics
        mean, deviation = rearrange(statistics, "b k s -> s b k 1 1 1")
        x = (x - mean) / deviation
        x = rearrange(x, "b k w t r -> k (b t) (w r)")
        gains = torch.stack([self.weight, self.bias])
        gains = select(gains, self.bin_of_place, self.place_of_bin).unflatten(1, (BANDS, -1))
        gain, offset = rearrange(gains, "two k w 1 r -> two k 1 (w r)")
        linears: list[Any] = list(self.linears)
        weight, bias = padded([y.weight for y in linears], [y.bias for y in linears])
        y = affine_linear(x, gain, offset, weight, bias)
        # Norms over frames and the band path take the bands of a frame side by side in memory.
        y = y.transpose(0, 1).contiguous().transpose(0, 1)
        return y.unflatten(1, (features.shape[0], -1))
