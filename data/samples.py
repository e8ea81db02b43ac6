"""Where the samples of training examples come from: the recordings, or decoded copies of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.audio import INDEX, SAMPLE_RATE, AudioError, Info, Signal, look_over, read, stamp
from data.utils import DataError, replacing
from data.workers import usable_cores

CACHE = INDEX.parent / "decoded"
_SLOW = (".ogg", ".opus")  # to decode; pieces of 16-kHz wav and flac are read as fast as needed
_FULL_SCALE = np.float32(32768)


class Samples:
    """Reads pieces of recordings that were usable when they were looked over."""

    def __init__(self) -> None:
        self._copies: dict[Path, Path] = {}

    def keep_decoded(self, paths: Iterable[Path]) -> None:
        """Decode the slow ones of these recordings into CACHE, and read them from there.

        Slow are Ogg files and those of other sampling rates. A copy has 16-bit integers, or 32-bit
        floats where the recording exceeds full scale. A recording that changes is decoded anew.

        Raise DataError if a copy cannot be written.
        """
        looked = look_over(list(paths)).items()
        slow = [
            path
            for path, info in looked
            if isinstance(info, Info) and (info.rate != SAMPLE_RATE or path.suffix.lower() in _SLOW)
        ]
        names = {path: hashlib.sha256(os.fsencode(stamp(path))) for path in slow}
        copies = {path: CACHE / f"{name.hexdigest()[:32]}.npy" for path, name in names.items()}
        new = {path: copy for path, copy in copies.items() if not copy.is_file()}
        try:
            CACHE.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(usable_cores()) as pool:
                made = pool.map(_decode, new, new.values())
                list(tqdm(made, "decoding", len(new), leave=False, disable=not new))
        except OSError as error:
            raise DataError(
                f"{CACHE}: decoded copies of recordings cannot be written ({error.strerror}); "
                "--run.no-packed goes without"
            ) from None
        self._copies |= copies

    def read(self, path: Path, start: int = 0, frames: int | None = None) -> Signal:
        """Return samples as `data.audio.read` does. Raise DataError if they are not there."""
        try:
            if path in self._copies:
                end = None if frames is None else start + frames
                x = np.load(self._copies[path], mmap_mode="r")[start:end]
                x = x / _FULL_SCALE if x.dtype == np.int16 else np.array(x)
            else:
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
