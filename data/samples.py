"""Where the samples of training examples come from: packed files, or else the recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.audio import AudioError, Signal, read
from data.errors import DataError
from data.packed import Pack


class Samples:
    """Reads pieces of recordings that were usable when they were looked over.

    Args:
        packs: what is in none of them is decoded.
    """

    def __init__(self, packs: Sequence[Pack] = ()) -> None:
        self._packs = list(packs)

    def read(self, path: Path, start: int = 0, frames: int | None = None) -> Signal:
        """As `data.audio.read`.

        Raises:
            DataError: the recording is no longer what it was.
        """
        try:
            pack = next((pack for pack in self._packs if path in pack), None)
            x = pack.read(path, start, frames) if pack else read(path, start, frames)
        except AudioError as error:
            raise DataError(f"{path}: {error}. It was usable before: put it back.") from None
        if not len(x):
            raise DataError(f"{path}: it is shorter than it was. Put it back, or start again.")
        return x

    def piece(self, path: Path, start: int, frames: int) -> Signal:
        """`frames` samples from `start` on, with zeros where the recording ends earlier."""
        x = self.read(path, start, frames)
        return np.pad(x, (0, frames - len(x))) if len(x) < frames else x
