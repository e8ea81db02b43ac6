"""Training and validation examples: pairs from disk, or clean speech and noise mixed on the fly.

An example is drawn from generators of its own, seeded by (seed, purpose, epoch, index), and so
does not depend on the process that makes it, on the number of workers or on what came before.
What is done to it beyond (`data.augment`) is drawn from another one, and changes nothing else.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.audio import SAMPLE_RATE, Signal
from data.augment import Augment, Drawn
from data.corpus import Pair, Recording
from data.samples import Samples
from data.sound import drawn_between

Key = tuple[int, int]  # epoch, index
# What a generator is for; 2 is `data.loading`'s, for the order.
_TRAINING, _VALIDATION, _AUGMENTATION = 0, 1, 3
_TALK = 3 * SAMPLE_RATE  # at most, of each talker in babble
_TRIES = 8  # at finding somebody else who speaks


class SpeechDataset(Dataset, ABC):
    """`dataset[epoch, index]` is {"name": str, "clean": (s,), "noisy": (s,)}, float32 at 16 kHz.

    Args:
        seed: of all that is drawn.
        frames: a random piece of that many samples, short files padded with zeros; None: all of it,
            up to `limit` samples, and nothing else done to it.
        samples: where recordings are read from.
        augment: what may be done to a piece.
    """

    def __init__(
        self,
        seed: int,
        frames: int | None,
        limit: int | None = None,
        samples: Samples | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.seed, self.frames, self.limit = seed, frames, limit
        self.samples = samples or Samples()
        self.augment = augment if augment != Augment() else None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def files(self) -> Iterator[tuple[str, int]]:
        """Names and lengths of all files that examples are made of, in a fixed order."""

    @abstractmethod
    def speech(self) -> Sequence[Pair | Recording]:
        """What the index counts."""

    @abstractmethod
    def sides(self, key: Key, frames: int | None) -> tuple[Signal, Signal]:
        """Clean and noisy, (frames,) each, or as long as the recording, up to the limit."""

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        name = self.speech()[index].name
        if self.augment is None or self.frames is None:
            return _example(name, *self.sides(key, self.frames))
        rng = np.random.default_rng([self.seed, _AUGMENTATION, epoch, index])
        drawn = Drawn(self.augment, rng, self.frames)
        clean, noisy = self.sides(key, drawn.source_frames)
        if drawn.nothing:
            return _example(name, clean, noisy)
        return _example(name, *drawn.apply(clean, noisy - clean, partial(self._talk, index)))

    def speakers(self) -> list[str]:
        """Who speaks in it, sorted."""
        return sorted({item.speaker for item in self.speech()})

    def fingerprint(self) -> str:
        """The same for files of the same names and lengths in the same order, wherever they lie."""
        return hashlib.sha256(repr(list(self.files())).encode()).hexdigest()[:16]

    def _talk(self, index: int, rng: np.random.Generator) -> Signal:
        """Something that another speaker says, (s,); nothing where none was found."""
        items = self.speech()
        for other in rng.integers(len(items), size=_TRIES):
            item = items[other]
            if item.speaker != items[index].speaker:
                path, length = _clean_file(item)
                start = int(rng.integers(max(0, length - _TALK) + 1))
                return self.samples.read(path, start, _TALK)
        return np.zeros(0, np.float32)


def _clean_file(item: Pair | Recording) -> tuple[Path, int]:
    """The file that speech is in, and its length."""
    if isinstance(item, Pair):
        return item.clean, item.frames
    return item.path, item.info.frames


def _example(name: str, clean: Signal, noisy: Signal) -> dict[str, Any]:
    return {"name": name, "clean": torch.from_numpy(clean), "noisy": torch.from_numpy(noisy)}


class PairDataset(SpeechDataset):
    """Noisy recordings with their clean ones.

    Args:
        pairs: from `data.corpus.load_pairs`; the others as in `SpeechDataset`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        seed: int,
        frames: int | None,
        limit: int | None = None,
        samples: Samples | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(seed, frames, limit, samples, augment)
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def files(self) -> Iterator[tuple[str, int]]:
        return ((pair.name, pair.frames) for pair in self.pairs)

    def speech(self) -> Sequence[Pair]:
        return self.pairs

    def sides(self, key: Key, frames: int | None) -> tuple[Signal, Signal]:
        epoch, index = key
        pair = self.pairs[index]
        start = 0
        if frames is None:
            frames = min(pair.frames, self.limit or pair.frames)
        else:
            rng = np.random.default_rng([self.seed, _TRAINING, epoch, index])
            start = int(rng.integers(max(0, pair.frames - frames) + 1))
        clean, noisy = (
            self.samples.piece(file, pair.frames, start, frames)
            for file in (pair.clean, pair.noisy)
        )
        return clean, noisy


class MixDataset(SpeechDataset):
    """Clean recordings with a random noise, at a random signal-to-noise ratio.

    The index counts the clean recordings. The SNR is that of the clean file's active parts to the
    whole noise file, as VoiceBank-DEMAND's is (Valentini-Botinhao et al., SSW 2016): in a short
    piece the local ratio varies around it.

    Args:
        clean, noise: from `data.corpus.load_recordings`.
        snr_db: lowest and highest SNR, uniform between them.
        levels: for validation, the SNRs to take in turn instead; all epochs are then the same.
            The others as in `SpeechDataset`.
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
        samples: Samples | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(seed, frames, limit, samples, augment)
        self.clean, self.noise, self.levels = list(clean), list(noise), tuple(levels)
        self.snr_db = snr_db

    def __len__(self) -> int:
        return len(self.clean)

    def files(self) -> Iterator[tuple[str, int]]:
        return ((r.name, r.info.frames) for r in (*self.clean, *self.noise))

    def speech(self) -> Sequence[Recording]:
        return self.clean

    def sides(self, key: Key, frames: int | None) -> tuple[Signal, Signal]:
        epoch, index = key
        stream = (_VALIDATION, 0) if self.levels else (_TRAINING, epoch)
        rng = np.random.default_rng([self.seed, *stream, index])
        speech = self.clean[index]
        noise = self.noise[rng.integers(len(self.noise))]
        if self.levels:
            snr = self.levels[index % len(self.levels)]
        else:
            snr = drawn_between(rng, *self.snr_db)
        length = speech.info.frames
        start = int(rng.integers(max(0, length - frames) + 1)) if frames else 0
        frames = frames or min(length, self.limit or length)
        clean = self.samples.piece(speech.path, length, start, frames)
        gain = 10 ** ((speech.info.active_level - noise.info.level - snr) / 20)
        return clean, clean + np.float32(gain) * self._noise_piece(noise, frames, rng)

    def _noise_piece(self, noise: Recording, frames: int, rng: np.random.Generator) -> Signal:
        """`frames` samples from a random place of a noise, which is repeated if it is shorter."""
        length = noise.info.frames
        if length >= frames:
            start = int(rng.integers(length - frames + 1))
            return self.samples.piece(noise.path, length, start, frames)
        whole = self.samples.read(noise.path)
        return np.resize(np.roll(whole, -int(rng.integers(len(whole)))), frames)
