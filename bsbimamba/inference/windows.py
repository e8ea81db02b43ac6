"""Enhance recordings of any length and rate by a network, in windows that overlap.

Three passes over the recording, all at 16 kHz (soxr, very high quality): the first finds each
channel's loudness, the second the statistics of its bands at that loudness, the third enhances.
Every window uses the loudness and statistics of the whole recording. The outermost `context` of an
enhanced window is dropped, because the network cannot hear there what lies beyond the window. The
remaining overlap of two windows lasts `fade`; the earlier one is faded into the later one. Windows
begin at whole hops of the transform, so that their frames are those of the whole recording.
docs/windows.md measures how much windows differ from the whole.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from bsbimamba.data.audio import AudioError
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.network.bands import band_sums, of_sums
from bsbimamba.network.net import RMS_FLOOR, BandSplitNet
from bsbimamba.network.stft import HOP, N_FFT, compressed, stft

Block = NDArray[np.float32]  # samples (channels, n)


class Source(Protocol):
    """A recording whose samples can be read several times, in blocks of any length."""

    rate: int
    channels: int
    frames: int  # samples a channel

    def blocks(self) -> Iterator[Block]: ...


@dataclass(frozen=True)
class Windows:
    """How a long signal is cut, in seconds; lengths are rounded to hops of the transform (8 ms).

    Attributes:
        length: length of a window.
        context: what is dropped at either end of a window.
        fade: duration of the fade from one window into the next.
    """

    length: float = 30.0
    context: float = 6.0
    fade: float = 0.512

    @property
    def overlap(self) -> int:
        """Samples that two neighbours share."""
        return 2 * hops(self.context) + hops(self.fade)

    @property
    def step(self) -> int:
        """Samples from the beginning of a window to that of the next."""
        return hops(self.length) - self.overlap

    def spans(self, total: int) -> list[tuple[int, int]]:
        """Return the first and last (excluded) sample of each window of `total` samples.

        The last window may be shorter than the others; it is longer than the overlap.
        """
        count = max(1, -(-(total - self.overlap) // self.step))
        length = hops(self.length)
        return [(i * self.step, min(i * self.step + length, total)) for i in range(count)]


def hops(seconds: float) -> int:
    """Return the samples in a time at 16 kHz, rounded to whole hops of the transform."""
    return round(seconds * SAMPLE_RATE / HOP) * HOP


def survey(source: Source) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """Measure a recording, in two passes.

    Returns:
        Its samples a channel at 16 kHz; the root mean square of each channel there, (c, 1); and
        `band_statistics` (c, 31, 2) of each channel divided by that.

    Raises:
        AudioError: it cannot be decoded, is empty, or has NaN or infinite samples.
    """
    if not source.frames:
        raise AudioError("empty: no samples")
    total, power = 0, np.zeros(source.channels)
    for block in _at_16_khz(source):
        total += block.shape[1]
        power += np.square(block, dtype=np.float64).sum(1)
    power /= total
    if not np.isfinite(power).all():
        raise AudioError("has NaN or infinite samples")
    loudness = np.sqrt(np.maximum(power, RMS_FLOOR**2))[:, None].astype(np.float32)
    return total, loudness, _statistics(_at_16_khz(source), loudness)


def _statistics(blocks: Iterable[Block], loudness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute `band_statistics` (c, 31, 2) over exactly the frames that the whole signal has."""
    edge = np.zeros((len(loudness), N_FFT // 2), np.float32)  # the transform is centred
    held, sums, frames = edge, torch.zeros((), dtype=torch.float64), 0
    for block in chain(blocks, [edge]):
        held = np.concatenate([held, block / loudness], axis=1)
        count = max(0, (held.shape[1] - N_FFT) // HOP + 1)
        if count:
            spectrum = stft(torch.from_numpy(held), center=False)
            sums = sums + band_sums(torch.view_as_real(compressed(spectrum)))
        held, frames = held[:, count * HOP :], frames + count
    return of_sums(sums, frames).float().numpy()


def enhanced(network: BandSplitNet, source: Source, windows: Windows) -> Iterator[Block]:
    """Yield the enhanced recording (c, n) in blocks, at its own rate and of its own length.

    Each channel is enhanced as if it were alone. Memory holds one window. The network is on the
    device to use.

    Raises:
        AudioError: as `survey`, or the network overflows.
    """
    total, loudness, statistics = survey(source)

    def enhance(window: Block) -> Block:
        rows = []
        for channel in zip(window, loudness, statistics, strict=True):
            given = (torch.from_numpy(x[None]).to(network.device) for x in channel)
            rows.append(network.enhance(*given)[0].cpu().numpy())
        clean = np.stack(rows)
        if not np.isfinite(clean).all():
            raise AudioError("the network gives NaN or infinite samples of it")
        return clean

    windowed = overlapped(_at_16_khz(source), enhance, total, windows)
    left = source.frames
    for block in resampled(windowed, source.channels, SAMPLE_RATE, source.rate):
        yield block[:, :left]
        left -= min(left, block.shape[1])
    if left:  # a few samples, by rounding
        yield np.zeros((source.channels, left), np.float32)


def overlapped(
    blocks: Iterable[Block], enhance: Callable[[Block], Block], total: int, windows: Windows
) -> Iterator[Block]:
    """Yield a signal (c, n), given in blocks of any length, enhanced window by window.

    Args:
        enhance: maps a window (c, n) to the enhanced one (c, n).
        total: samples of all blocks together.
    """
    blocks, fade = iter(blocks), hops(windows.fade)
    # Sampled at midpoints, so that the rising slope and its mirror image add up to 1.
    slope = np.sin((np.arange(fade) + 0.5) * (np.pi / 2 / max(1, fade))) ** 2
    rise = np.append(np.zeros(hops(windows.context)), slope).astype(np.float32)
    held = next(blocks)  # the signal from the beginning of a window on
    carried = held[:, :0]  # the end of the last window, which lies within the next
    for begin, end in windows.spans(total):
        while held.shape[1] < end - begin:
            held = np.concatenate([held, next(blocks)], axis=1)
        window = enhance(held[:, : end - begin])
        if begin > 0:
            window[:, : len(rise)] *= rise
        if end < total:
            window[:, window.shape[1] - len(rise) :] *= rise[::-1]
        window[:, : carried.shape[1]] += carried
        yield window[:, : windows.step]
        held, carried = held[:, windows.step :], window[:, windows.step :]
    yield carried


def resampled(blocks: Iterable[Block], channels: int, rate: int, to: int) -> Iterator[Block]:
    """Yield a signal (c, n), given in blocks, at another rate.

    The result does not depend on where the signal is cut into blocks, to the bit.
    """
    if rate == to:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, to, channels, dtype="float32", quality="VHQ")
    for block in blocks:
        piece = np.ascontiguousarray(block.T)
        yield stream.resample_chunk(piece).reshape(-1, channels).T
    nothing = np.zeros((0, channels), np.float32)
    yield stream.resample_chunk(nothing, last=True).reshape(-1, channels).T


def _at_16_khz(source: Source) -> Iterator[Block]:
    """Yield the source's blocks at 16 kHz.

    At other rates zeros follow, so that a signal however short has a sample there.
    """
    blocks: Iterable[Block] = source.blocks()
    if source.rate != SAMPLE_RATE:
        padding = np.zeros((source.channels, math.ceil(source.rate / SAMPLE_RATE)), np.float32)
        blocks = chain(blocks, [padding])
    return resampled(blocks, source.channels, source.rate, SAMPLE_RATE)
