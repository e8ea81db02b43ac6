"""Training and validation examples: pairs from disk, or clean speech and noise mixed on the fly.

An example is drawn from a generator of its own, seeded by (seed, purpose, epoch, index), and so
does not depend on the process that makes it, on the number of workers or on what came before.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.audio import AudioError, Signal, read
from data.corpus import Pair, Recording
from data.errors import DataError

Key = tuple[int, int]  # epoch, index
_TRAINING, _VALIDATION = 0, 1  # what a generator is for; 2 is `data.loading`'s, for the order


def _read(path: Path, start: int = 0, frames: int | None = None) -> Signal:
    """`data.audio.read` of a file that was usable when it was looked over.

    Raises:
        DataError: it no longer is.
    """
    try:
        x = read(path, start, frames)
    except AudioError as error:
        raise DataError(f"{path}: {error}. It was usable before: put it back.") from None
    if not len(x):
        raise DataError(f"{path}: it is shorter than it was. Put it back, or start again.")
    return x


def _piece(path: Path, start: int, frames: int) -> Signal:
    """`frames` samples of a file from `start` on, with zeros where it ends earlier."""
    x = _read(path, start, frames)
    return np.pad(x, (0, frames - len(x)))


def _example(name: str, clean: Signal, noisy: Signal) -> dict[str, Any]:
    return {"name": name, "clean": torch.from_numpy(clean), "noisy": torch.from_numpy(noisy)}


class SpeechDataset(Dataset, ABC):
    """`dataset[epoch, index]` is {"name": str, "clean": (s,), "noisy": (s,)}, float32 at 16 kHz."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: Key) -> dict[str, Any]: ...

    @abstractmethod
    def files(self) -> Iterator[tuple[str, int]]:
        """Names and lengths of all files that examples are made of, in a fixed order."""

    @abstractmethod
    def speakers(self) -> list[str]:
        """Who speaks in it, sorted."""

    def fingerprint(self) -> str:
        """The same for files of the same names and lengths in the same order, wherever they lie."""
        return hashlib.sha256(repr(list(self.files())).encode()).hexdigest()[:16]


class PairDataset(SpeechDataset):
    """Noisy recordings with their clean ones.

    Args:
        pairs: from `data.corpus.load_pairs`.
        frames: a random piece of that many samples, short files padded with zeros; None: all of it,
            up to `limit` samples.
    """

    def __init__(
        self, pairs: Sequence[Pair], seed: int, frames: int | None, limit: int | None = None
    ) -> None:
        self.pairs, self.seed, self.frames, self.limit = list(pairs), seed, frames, limit

    def __len__(self) -> int:
        return len(self.pairs)

    def files(self) -> Iterator[tuple[str, int]]:
        return ((pair.name, pair.frames) for pair in self.pairs)

    def speakers(self) -> list[str]:
        return sorted({pair.speaker for pair in self.pairs})

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        pair = self.pairs[index]
        if self.frames is None:
            frames = min(pair.frames, self.limit or pair.frames)
            start = 0
        else:
            frames = self.frames
            rng = np.random.default_rng([self.seed, _TRAINING, epoch, index])
            start = int(rng.integers(max(0, pair.frames - frames) + 1))
        clean, noisy = (_piece(path, start, frames) for path in (pair.clean, pair.noisy))
        return _example(pair.name, clean, noisy)


class MixDataset(SpeechDataset):
    """Clean recordings with a random noise, at a random signal-to-noise ratio.

    The index counts the clean recordings. The SNR is that of the clean file's active parts to the
    whole noise file, as VoiceBank-DEMAND's is (Valentini-Botinhao et al., SSW 2016): in a short
    piece the local ratio varies around it.

    Args:
        clean, noise: from `data.corpus.load_recordings`.
        snr_db: lowest and highest SNR, uniform between them.
        frames, limit: as in `PairDataset`.
        levels: for validation, the SNRs to take in turn instead; all epochs are then the same.
    """

    def __init__(
        self,
        clean: Sequence[Recording],
        noise: Sequence[Recording],
        seed: int,
        snr_db: tuple[float, float],
        frames: int | None,
        limit: int | None = None,
        levels: Sequence[float] = (),
    ) -> None:
        self.clean, self.noise, self.levels = list(clean), list(noise), tuple(levels)
        self.seed, self.snr_db, self.frames, self.limit = seed, snr_db, frames, limit

    def __len__(self) -> int:
        return len(self.clean)

    def files(self) -> Iterator[tuple[str, int]]:
        return ((r.name, r.info.frames) for r in (*self.clean, *self.noise))

    def speakers(self) -> list[str]:
        return sorted({r.speaker for r in self.clean})

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        stream = (_VALIDATION, 0) if self.levels else (_TRAINING, epoch)
        rng = np.random.default_rng([self.seed, *stream, index])
        speech = self.clean[index]
        noise = self.noise[rng.integers(len(self.noise))]
        snr = self.levels[index % len(self.levels)] if self.levels else rng.uniform(*self.snr_db)
        length = speech.info.frames
        frames = self.frames or min(length, self.limit or length)
        start = int(rng.integers(max(0, length - frames) + 1)) if self.frames else 0
        clean = _piece(speech.path, start, frames)
        gain = 10 ** ((speech.info.active_level - noise.info.level - snr) / 20)
        return _example(
            speech.name, clean, clean + np.float32(gain) * _noise_piece(noise, frames, rng)
        )


def _noise_piece(noise: Recording, frames: int, rng: np.random.Generator) -> Signal:
    """`frames` samples from a random place of a noise, which is repeated if it is shorter."""
    length = noise.info.frames
    if length >= frames:
        return _piece(noise.path, int(rng.integers(length - frames + 1)), frames)
    whole = _read(noise.path)
    return np.resize(np.roll(whole, -int(rng.integers(len(whole)))), frames)
