"""A network's use on signals of any length: windows that overlap, faded into each other.

Each window is enhanced by itself, with the loudness and statistics of the whole recording. What a
window says of its outermost `context` is dropped, since there it lacks what lies beyond; where two
windows then still overlap, for `fade`, the earlier goes over into the later by a Hann slope.
Windows begin at whole hops of the transform, so that their frames are those of the whole. Lengths
are measured in docs/windows.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandsplit.stft import HOP
from data.audio import SAMPLE_RATE

Block = NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """How a long signal is cut. All in seconds; taken as whole hops of the transform (8 ms).

    Attributes:
        length: of a window.
        context: at either end of a window, of which nothing is kept.
        fade: in which one window goes over into the next.
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
        """Samples from one window's beginning to the next one's."""
        return hops(self.length) - self.overlap

    def spans(self, total: int) -> list[tuple[int, int]]:
        """First and last (excluded) sample of each window of a signal of so many samples.

        The last one may be shorter than the others; it is longer than the overlap.
        """
        count = max(1, -(-(total - self.overlap) // self.step))
        length = hops(self.length)
        return [(i * self.step, min(i * self.step + length, total)) for i in range(count)]


def hops(seconds: float) -> int:
    """Samples of a time at 16 kHz, rounded to whole hops of the transform."""
    return round(seconds * SAMPLE_RATE / HOP) * HOP


def overlapped(
    blocks: Iterable[Block], enhance: Callable[[Block], Block], total: int, windows: Windows
) -> Iterator[Block]:
    """The signal in `blocks` (c, n) of any lengths, enhanced by windows, as blocks (c, n).

    No more than a window of it and a block are held at once.

    Args:
        enhance: a window (c, n) to the same, enhanced.
        total: samples that the blocks have together.
    """
    source = _Buffer(blocks)
    context, fade = hops(windows.context), hops(windows.fade)
    # Midpoints of the samples: the slope of the later window, and its mirror, sum to 1.
    rise = np.sin((np.arange(fade) + 0.5) * (np.pi / 2 / max(1, fade))) ** 2
    rise = rise.astype(np.float32)
    fading: Block | None = None  # the earlier window, where the next one comes up
    for begin, end in windows.spans(total):
        piece = enhance(source.piece(begin, end))
        last = end == total
        kept = piece[:, : len(piece[0]) if last else len(piece[0]) - context]
        if fading is not None:
            kept = kept[:, context:].copy()
            kept[:, :fade] = rise * kept[:, :fade] + rise[::-1] * fading
        if last:
            yield kept
        else:
            cut = kept.shape[1] - fade
            yield kept[:, :cut]
            fading = kept[:, cut:]


class _Buffer:
    """Pieces, of which none begins before the one before it, of a signal that comes in blocks."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = iter(blocks)
        self._held: Block | None = None
        self._first = 0  # the place of what is held in the signal

    def piece(self, begin: int, end: int) -> Block:
        """Samples `begin` to `end` (c, n)."""
        parts = [] if self._held is None else [self._held[:, begin - self._first :]]
        there = begin + sum(part.shape[1] for part in parts)
        while there < end:
            parts.append(next(self._blocks))
            there += parts[-1].shape[1]
        self._held, self._first = np.concatenate(parts, axis=1), begin
        return self._held[:, : end - begin]
