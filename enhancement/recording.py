"""A recording at any rate, enhanced as it streams by: in blocks in, in blocks out.

Three passes over the source: the first finds each channel's loudness at 16 kHz, the second its
statistics at that loudness, the third enhances. All resample on the way (soxr, very high quality;
in blocks to the bit what it is at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from bandsplit.bands import band_sums, of_sums
from bandsplit.net import RMS_FLOOR, BandSplitNet
from bandsplit.stft import HOP, N_FFT, compressed, stft
from data.audio import CLIPPED, FULL_SCALE, LOUDEST, SAMPLE_RATE, AudioError
from enhancement.windows import Block, Windows, overlapped

_SAMPLES = 1 << 17  # of a block at most


class Source(Protocol):
    """Where samples come from: the same each time."""

    rate: int
    channels: int

    def blocks(self) -> Iterator[Block]:
        """The samples (c, n) in blocks of any length.

        Raises:
            AudioError: they cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class Survey:
    """What the first two passes find.

    Attributes:
        frames: samples a channel at the source's rate.
        total: and at 16 kHz.
        loudness: of each channel at 16 kHz, (c, 1).
        statistics: of each channel, divided by its loudness: `band_statistics` (c, 31, 2).
        silent: channels in which the network hears nothing.
        clipped: the share of samples at full scale.
    """

    frames: int
    total: int
    loudness: NDArray[np.float32]
    statistics: NDArray[np.float32]
    silent: int
    clipped: float

    def notes(self, channels: int) -> list[str]:
        """What a listener should know."""
        notes = []
        if self.silent:
            whole = self.silent == channels
            notes.append("silent" if whole else f"{self.silent} of {channels} channels are silent")
        if self.clipped >= CLIPPED:
            notes.append(
                f"clipped: {100 * self.clipped:.3g} % of its samples are at full scale, and what "
                "they lack is not brought back"
            )
        return notes


def survey(source: Source) -> Survey:
    """Look a recording over.

    Raises:
        AudioError: it cannot be decoded, or is empty, or holds no audio.
    """
    frames = total = clipped = 0
    power = np.zeros(source.channels)

    def watched() -> Iterator[Block]:
        nonlocal frames, clipped
        for block in source.blocks():
            if not np.isfinite(block).all():
                raise AudioError("has NaN or infinite samples")
            frames += block.shape[1]
            clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
            yield block

    for block in resampled(_padded(watched(), source), source.rate, SAMPLE_RATE):
        total += block.shape[1]
        power += np.square(block, dtype=np.float64).sum(1)
    if not frames or not total:
        raise AudioError("empty: no samples")
    power /= total
    if not (power < 10 ** (LOUDEST / 10)).all():
        raise AudioError(f"no audio: above {LOUDEST:.0f} dB of full scale")
    loudness = np.sqrt(np.maximum(power, RMS_FLOOR**2))[:, None].astype(np.float32)
    silent = int(np.count_nonzero(power <= RMS_FLOOR**2))
    statistics = _statistics(_at_16_khz(source, total), loudness)
    clipped_share = clipped / (frames * source.channels)
    return Survey(frames, total, loudness, statistics, silent, clipped_share)


def _statistics(blocks: Iterable[Block], loudness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute `band_statistics` over exactly the frames that the network has of the whole."""
    channels = len(loudness)
    edge = np.zeros((channels, N_FFT // 2), np.float32)
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
    """The recording (c, n) in blocks, at its own rate, `found.frames` samples long.

    Each channel is enhanced as if it were alone.

    Args:
        network: on the device to use.
        found: what `survey` says of the source.
        progress: told the seconds that each window brings.

    Raises:
        AudioError: the source has changed since it was looked over, or the network overflows.
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

    clean = overlapped(_at_16_khz(source, found.total), enhance, found.total, windows)

    def told() -> Iterator[Block]:
        for block in clean:
            progress(block.shape[1] / SAMPLE_RATE)
            yield block

    yield from _first(resampled(told(), SAMPLE_RATE, source.rate), found.frames)


def _at_16_khz(source: Source, total: int) -> Iterator[Block]:
    """The source at 16 kHz, if it has so many samples there."""
    return _all(resampled(_padded(source.blocks(), source), source.rate, SAMPLE_RATE), total)


def resampled(blocks: Iterable[Block], rate: int, to: int) -> Iterator[Block]:
    """A signal (c, n) in blocks, at another rate."""
    if rate == to:
        yield from blocks
        return
    stream = None
    for block in blocks:
        if stream is None:
            stream = soxr.ResampleStream(rate, to, len(block), dtype="float32", quality="VHQ")
        for first in range(0, block.shape[1], _SAMPLES):
            piece = np.ascontiguousarray(block[:, first : first + _SAMPLES].T)
            yield stream.resample_chunk(piece).reshape(-1, len(block)).T
    if stream is not None:
        nothing = np.zeros((0, len(block)), np.float32)
        yield stream.resample_chunk(nothing, last=True).reshape(-1, len(block)).T


def _padded(blocks: Iterable[Block], source: Source) -> Iterator[Block]:
    """With some zeros at the end, of which there is a sample at 16 kHz, however short it is."""
    yield from blocks
    if source.rate != SAMPLE_RATE:
        yield np.zeros((source.channels, math.ceil(source.rate / SAMPLE_RATE)), np.float32)


def _all(blocks: Iterable[Block], total: int) -> Iterator[Block]:
    """The blocks, if they have so many samples together."""
    changed = AudioError("it changed while it was read")
    for block in blocks:
        total -= block.shape[1]
        if total < 0:
            raise changed
        yield block
    # A generator that runs dry early would end its reader without a word.
    if total:
        raise changed


def _first(blocks: Iterable[Block], frames: int) -> Iterator[Block]:
    """So many samples of a signal, with zeros where it has fewer (a handful, of rounding)."""
    for block in blocks:
        yield block[:, :frames]
        frames -= min(frames, block.shape[1])
    if frames:
        yield np.zeros((len(block), frames), np.float32)
