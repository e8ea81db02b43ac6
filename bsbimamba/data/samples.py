"""Samples of training examples, from the recordings or from decoded copies of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bsbimamba.data.audio import (
    INDEX,
    SAMPLE_RATE,
    AudioError,
    Info,
    Signal,
    look_over,
    read,
    stamp,
)
from bsbimamba.data.workers import in_threads
from bsbimamba.utils import DataError, replacing

CACHE = INDEX.parent / "decoded"
_SLOW = (".ogg", ".opus")  # to decode; pieces of 16-kHz wav and flac are read as fast as needed
_FULL_SCALE = np.float32(32768)


class Samples:
    """Reads pieces of recordings that were usable when they were looked over."""

    def __init__(self) -> None:
        self._copies: dict[Path, Path] = {}

    def keep_decoded(self, paths: Iterable[Path]) -> None:
        """Decode those recordings that are slow to decode into CACHE, and read them from there.

        These are Ogg files and those of other sampling rates. A copy has 16-bit integers, or 32-bit
        floats where the recording exceeds full scale. A recording that changes is decoded anew.

        Raises:
            DataError: a copy cannot be written.
        """
        copies = {}
        for path, info in look_over(list(paths)).items():
            slow_kind = path.suffix.lower() in _SLOW
            if isinstance(info, Info) and (slow_kind or info.rate != SAMPLE_RATE):
                name = hashlib.sha256(os.fsencode(stamp(path))).hexdigest()[:32]
                copies[path] = CACHE / f"{name}.npy"
        new = [path for path, copy in copies.items() if not copy.is_file()]
        try:
            if new:
                CACHE.mkdir(parents=True, exist_ok=True)
            in_threads(lambda path: _decode(path, copies[path]), new, "decoding")
        except OSError as error:
            raise DataError(
                f"{CACHE}: decoded copies of recordings cannot be written ({error.strerror}); "
                "--run.no-packed goes without"
            ) from None
        self._copies |= copies

    def read(self, path: Path, start: int = 0, frames: int | None = None) -> Signal:
        """Return samples as `data.audio.read` does. Raise DataError if the recording has none."""
        if path in self._copies:
            end = None if frames is None else start + frames
            x = np.load(self._copies[path], mmap_mode="r")[start:end]
            return x / _FULL_SCALE if x.dtype == np.int16 else np.array(x)
        try:
            x = read(path, start, frames)
        except AudioError as error:
            raise DataError(f"{path}: {error}. It was usable before: put it back.") from None
        if not len(x):
            raise DataError(f"{path}: it is shorter than it was. Put it back, or start again.")
        return x

    def piece(self, path: Path, length: int, start: int, frames: int) -> Signal:
        """Return `frames` samples from `start` on of a recording of this length.

        Zeros follow its end. Raises as `read`.
        """
        x = self.read(path, start, frames)
        if len(x) < min(frames, length - start):
            raise DataError(f"{path}: it is shorter than it was. Put it back, or start again.")
        return np.pad(x, (0, frames - len(x))) if len(x) < frames else x


def _decode(path: Path, copy: Path) -> None:
    x = read(path)
    scaled = np.round(x * _FULL_SCALE)
    fits = np.abs(scaled + 0.5).max() < _FULL_SCALE
    with replacing(copy) as temporary, temporary.open("wb") as file:
        np.save(file, scaled.astype(np.int16) if fits else x)
