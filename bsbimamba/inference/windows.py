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

from bsbimamba.data.audio import CLIPPED, FULL_SCALE, LOUDEST, SAMPLE_RATE, AudioError
from bsbimamba.network.bands import band_sums, of_sums
from bsbimamba.network.net import RMS_FLOOR, BandSplitNet
from bsbimamba.network.stft import HOP, N_FFT, compressed, stft

Block = NDArray[np.float32]  # samples (channels, n)


class Source(Protocol):
    """A recording whose samples can be read several times, in blocks of any length."""

    rate: int
    channels: int

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

    def __post_init__(self) -> None:
        if min(self.length, self.context, self.fade) < 0 or self.step < 1:
            raise ValueError(
                f"windows of {self.length:g} s are too short for twice {self.context:g} s of "
                f"context and {self.fade:g} s of fading"
            )

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


@dataclass(frozen=True)
class Survey:
    """What the first two passes over a recording find.

    Attributes:
        frames: samples a channel at the source's rate.
        total: samples a channel at 16 kHz.
        loudness: root mean square of each channel at 16 kHz, (c, 1).
        statistics: `band_statistics` (c, 31, 2) of each channel divided by its loudness.
        notes: for the listener, such as that the recording is clipped.
    """

    frames: int
    total: int
    loudness: NDArray[np.float32]
    statistics: NDArray[np.float32]
    notes: list[str]


def survey(source: Source) -> Survey:
    """Measure a recording, in two passes.

    Raises:
        AudioError: it cannot be decoded, is empty, or holds no audio.
    """
    frames = total = clipped = 0
    power = np.zeros(source.channels)

    def checked() -> Iterator[Block]:
        nonlocal frames, clipped
        for block in source.blocks():
            if not np.isfinite(block).all():
                raise AudioError("has NaN or infinite samples")
            frames += block.shape[1]
            clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
            yield block

    for block in _at_16_khz(source, checked()):
        total += block.shape[1]
        power += np.square(block, dtype=np.float64).sum(1)
    if not frames or not total:
        raise AudioError("empty: no samples")
    power /= total
    if not (power < 10 ** (LOUDEST / 10)).all():
        raise AudioError(f"no audio: above {LOUDEST:.0f} dB of full scale")
    notes = []
    if silent := int(np.count_nonzero(power <= RMS_FLOOR**2)):
        channels = source.channels
        notes += ["silent" if silent == channels else f"{silent} of {channels} channels are silent"]
    if (share := clipped / (frames * source.channels)) >= CLIPPED:
        notes.append(
            f"clipped: {100 * share:.3g} % of its samples are at full scale; the peaks that were "
            "cut off are not restored"
        )
    loudness = np.sqrt(np.maximum(power, RMS_FLOOR**2))[:, None].astype(np.float32)
    statistics = _statistics(_at_16_khz(source, source.blocks()), loudness)
    return Survey(frames, total, loudness, statistics, notes)


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


def enhanced(
    network: BandSplitNet,
    source: Source,
    found: Survey,
    windows: Windows,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Block]:
    """Yield the enhanced recording (c, n) in blocks, at its own rate, `found.frames` samples long.

    Each channel is enhanced as if it were alone. Memory holds one window.

    Args:
        network: on the device to use.
        found: what `survey` returns for the source.
        progress: called with the seconds that each window adds.

    Raises:
        AudioError: the source cannot be decoded, or the network overflows.
    """

    def enhance(window: Block) -> Block:
        rows = []
        for channel in zip(window, found.loudness, found.statistics, strict=True):
            given = (torch.from_numpy(x[None]).to(network.device) for x in channel)
            rows.append(network.enhance(*given)[0].cpu().numpy())
        clean = np.stack(rows)
        if not np.isfinite(clean).all():
            raise AudioError("the network gives NaN or infinite samples of it")
        return clean

    windowed = overlapped(_at_16_khz(source, source.blocks()), enhance, found.total, windows)
    left = found.frames
    for block in resampled(windowed, SAMPLE_RATE, source.rate):
        progress(block.shape[1] / source.rate)
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
    blocks, context, fade = iter(blocks), hops(windows.context), hops(windows.fade)
    # Sampled at midpoints, so that the rising slope and its mirror image add up to 1.
    slope = np.sin((np.arange(fade) + 0.5) * (np.pi / 2 / max(1, fade))) ** 2
    rise = slope.astype(np.float32)
    held: Block | None = None  # the signal from the beginning of the last window on
    fading: Block | None = None  # the end of the last window, to be faded into the next
    for begin, end in windows.spans(total):
        parts = [] if held is None else [held[:, windows.step :]]
        missing = end - begin - sum(part.shape[1] for part in parts)
        while missing > 0:
            parts.append(next(blocks))
            missing -= parts[-1].shape[1]
        held = np.concatenate(parts, axis=1)
        kept = enhance(held[:, : end - begin])
        if end < total:
            kept = kept[:, : kept.shape[1] - context]
        if fading is not None:
            kept = kept[:, context:].copy()
            kept[:, :fade] = rise * kept[:, :fade] + rise[::-1] * fading
        if end == total:
            yield kept
        else:
            cut = kept.shape[1] - fade
            yield kept[:, :cut]
            fading = kept[:, cut:]


def resampled(blocks: Iterable[Block], rate: int, to: int) -> Iterator[Block]:
    """Yield a signal (c, n), given in blocks, at another rate.

    The result does not depend on where the signal is cut into blocks, to the bit.
    """
    if rate == to:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(rate, to, len(block), dtype="float32", quality="VHQ")
        piece = np.ascontiguousarray(block.T)
        yield stream.resample_chunk(piece).reshape(-1, len(block)).T
    if stream is not None:
        nothing = np.zeros((0, len(block)), np.float32)
        yield stream.resample_chunk(nothing, last=True).reshape(-1, len(block)).T


def _at_16_khz(source: Source, blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the source's blocks at 16 kHz.

    At other rates zeros follow, so that a signal however short has a sample there.
    """
    if source.rate != SAMPLE_RATE:
        padding = np.zeros((source.channels, math.ceil(source.rate / SAMPLE_RATE)), np.float32)
        blocks = chain(blocks, [padding])
    return resampled(blocks, source.rate, SAMPLE_RATE)
