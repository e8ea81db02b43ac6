"""Samples of training examples, read from the recordings or from decoded copies of them."""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bsbimamba.data import audio
from bsbimamba.data.audio import AudioError, Info
from bsbimamba.data.levels import Signal
from bsbimamba.data.workers import in_threads
from bsbimamba.utils import DataError, replacing

log = logging.getLogger("data")

CACHE = audio.INDEX.parent / "decoded"
_FULL_SCALE = np.float32(32768)


class Samples:
    """Reads pieces of recordings that were usable when they were looked over."""

    def __init__(self) -> None:
        self._copies: dict[Path, Path] = {}

    def keep_decoded(self, paths: Iterable[Path]) -> None:
        """Decode recordings that are slow to decode into CACHE, and read them from there.

        These are Ogg and MP3 files, those of other sampling rates, and some that do not store
        their length. A copy has 16-bit integers, or 32-bit floats where the recording exceeds full
        scale. A recording that changes gets another copy; the old one stays, as another run may
        read it. Raises DataError if a copy cannot be written.
        """
        copies = {}
        for path, info in audio.look_over(list(paths)).items():
            if isinstance(info, Info) and info.slow:
                made_of = f"{audio.stamp(path)}|{audio.INDEX.name}"  # which tells how it is decoded
                digest = hashlib.sha256(os.fsencode(made_of)).hexdigest()
                copies[path] = CACHE / f"{digest[:20]}.npy"
        new = [path for path, copy in copies.items() if not copy.is_file()]
        if new:
            log.info("decoded copies of %d recordings are kept in %s", len(copies), CACHE)
        try:
            CACHE.mkdir(parents=True, exist_ok=True)
            in_threads(lambda path: _decode(path, copies[path]), new, "decoding")
        except OSError as error:
            raise DataError(
                f"{CACHE}: decoded copies of recordings cannot be written ({error.strerror}); "
                "XDG_CACHE_HOME names another place, --run.no-packed goes without"
            ) from None
        self._copies |= copies

    def piece(self, path: Path, length: int, start: int, frames: int) -> Signal:
        """Return `frames` samples from `start` on of a recording of this length, zeros at its end.

        Raises DataError if the recording cannot be read or is shorter than this length.
        """
        try:
            if path in self._copies:
                x = np.load(self._copies[path], mmap_mode="r")[start : start + frames]
                x = x / _FULL_SCALE if x.dtype == np.int16 else np.array(x)
            else:
                x = audio.read(path, start, frames)
        except AudioError as error:
            raise DataError(f"{path}: {error}. It was usable before: put it back.") from None
        if len(x) < min(frames, length - start):
            raise DataError(f"{path}: it is shorter than it was. Put it back, or start again.")
        return np.pad(x, (0, frames - len(x))) if len(x) < frames else x


def _decode(path: Path, copy: Path) -> None:
    x = audio.read(path)
    scaled = np.round(x * _FULL_SCALE)
    fits = np.abs(scaled + 0.5).max() < _FULL_SCALE
    with replacing(copy) as temporary, temporary.open("wb") as file:
        np.save(file, scaled.astype(np.int16) if fits else x)
