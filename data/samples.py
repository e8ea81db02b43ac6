"""Where the samples of training examples come from: packed files, or else the recordings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.audio import AudioError, Signal, read
from data.errors import DataError
from data.packed import Pack

log = logging.getLogger("data")

_SHORTER = "it is shorter than it was. Put it back, or start again."


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
            x = self._packed(path, start, frames)
            x = read(path, start, frames) if x is None else x
        except AudioError as error:
            raise DataError(f"{path}: {error}. It was usable before: put it back.") from None
        if not len(x):
            raise DataError(f"{path}: {_SHORTER}")
        return x

    def piece(self, path: Path, length: int, start: int, frames: int) -> Signal:
        """`frames` samples from `start` on of a recording of this length, with zeros after its end.

        Raises:
            DataError: see `read`.
        """
        x = self.read(path, start, frames)
        if len(x) < min(frames, length - start):
            raise DataError(f"{path}: {_SHORTER}")
        return np.pad(x, (0, frames - len(x))) if len(x) < frames else x

    def _packed(self, path: Path, start: int, frames: int | None) -> Signal | None:
        for pack in self._packs:
            if path in pack:
                try:
                    return pack.read(path, start, frames)
                except OSError as error:  # packed anew meanwhile, which removes what was there
                    log.warning(
                        "%s: %s; its files are read instead", pack.path, error.strerror or error
                    )
                    self._packs.remove(pack)
                    return None
        return None
