"""Training and validation examples, pairs or speech and noise mixed on the fly, and their batches.

An example is drawn from generators of its own, seeded by (seed, purpose, epoch, index). So it does
not depend on the process that makes it, the number of workers or earlier examples.
`training.sources` makes the datasets of a run; `training.loop` takes a step for each batch.
"""

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from torch.utils.data import DataLoader, Dataset

from bsbimamba.data.corpus import Pair, Recording
from bsbimamba.data.levels import FRAME, SAMPLE_RATE, SILENCE, Signal, active_rms, power
from bsbimamba.data.samples import Samples
from bsbimamba.data.workers import begin_worker, process_context

Key = tuple[int, int]  # epoch, index
Item = TypeVar("Item", Pair, Recording)
_TRAINING, _VALIDATION, _ORDER = 0, 1, 2  # what a generator is for
_TALKERS = (3, 7)  # in the babble that speech is mixed with, fewest and most
_LONG_TERM = 5 * SAMPLE_RATE  # at most, of the speech that speech-shaped noise is shaped after
_COUNTED = 30 * SAMPLE_RATE // FRAME  # active frames of one noise, at most, in validation
_GOLDEN = (5**0.5 - 1) / 2
# Mean square below which a voice is not heard.
_SILENT = 1e-10


class SpeechDataset(Dataset, ABC, Generic[Item]):
    """`dataset[epoch, index]` is {"name": str, "clean": (s,), "noisy": (s,)}, float32 at 16 kHz.

    Args:
        items: recordings of speech, or pairs; what the index counts.
        seed: of all that is drawn.
        frames: length of a random piece, in samples; short files are padded with zeros. None: the
            whole recording, up to `limit` samples.
        samples: where recordings are read from.
    """

    def __init__(
        self,
        items: Sequence[Item],
        seed: int,
        frames: int | None,
        limit: int | None = None,
        samples: Samples | None = None,
    ) -> None:
        self.items: list[Item] = list(items)
        self.seed, self.frames, self.limit = seed, frames, limit
        self.samples = samples or Samples()

    def __len__(self) -> int:
        return len(self.items)

    @abstractmethod
    def sides(self, key: Key) -> tuple[Signal, Signal]:
        """Return clean and noisy, (s,) each."""

    def __getitem__(self, key: Key) -> dict[str, Any]:
        clean, noisy = map(torch.from_numpy, self.sides(key))
        return {"name": self.items[key[1]].name, "clean": clean, "noisy": noisy}

    def speakers(self) -> list[str]:
        """Return who speaks in it, sorted."""
        return sorted({item.speaker for item in self.items})

    def fingerprint(self) -> str:
        """Return a digest of the files' names and lengths in their order."""
        files = [(item.name, item.frames) for item in self.files()]
        return hashlib.sha256(repr(files).encode()).hexdigest()[:16]

    def files(self) -> Sequence[Item]:
        """Return all that examples are made of, in a fixed order."""
        return self.items


class PairDataset(SpeechDataset[Pair]):
    """Noisy recordings with their clean ones, from `data.corpus.load_pairs`."""

    def sides(self, key: Key) -> tuple[Signal, Signal]:
        epoch, index = key
        pair = self.items[index]
        start, frames = 0, self.frames
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


class MixDataset(SpeechDataset[Recording]):
    """Clean recordings with a random noise, at a random signal-to-noise ratio.

    The index counts the clean recordings. The SNR is that of the clean file's active speech level
    (ITU-T P.56), as in VoiceBank-DEMAND (Valentini-Botinhao et al., SSW 2016), to the level of the
    piece of noise that is mixed in, where it holds sound (`data.levels.active_rms`). So it holds in
    every example; only noise below -100 dB of full scale is not made louder to reach it.

    A noise file is drawn in proportion to its seconds of sound (`data.levels.active_frames`), and a
    piece among those with sound in at least a quarter of their frames, or half as many as the
    file's fullest piece has. A file shorter than the piece is repeated. Babble and speech-shaped
    noise are made of other speakers of this data set; a noise file replaces them if there are none.

    Args:
        clean, noise: from `data.corpus.load_recordings`.
        snr_db: lowest and highest SNR, uniform between them.
        levels: for validation, the SNRs to take in turn instead; all epochs are then the same, and
            the noises are taken in turn, in proportion to their seconds of sound, 30 at most.
            The others as in `SpeechDataset`.
        babble: the probability of babble of 3 to 7 talkers.
        speech_shaped: that of steady noise with the long-term spectrum of one.
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
        babble: float = 0.0,
        speech_shaped: float = 0.0,
    ) -> None:
        super().__init__(clean, seed, frames, limit, samples)
        self.noise, self.levels = list(noise), tuple(levels)
        self.snr_db, self.babble, self.speech_shaped = snr_db, babble, speech_shaped
        counts = [int(r.info.active.sum()) for r in self.noise]
        self._ends = np.cumsum(np.minimum(counts, _COUNTED) if levels else counts)

    def files(self) -> Sequence[Recording]:
        return [*self.items, *self.noise]

    def sides(self, key: Key) -> tuple[Signal, Signal]:
        epoch, index = key
        stream = (_VALIDATION, 0) if self.levels else (_TRAINING, epoch)
        rng = np.random.default_rng([self.seed, *stream, index])
        speech = self.items[index]
        if self.levels:
            # Multiples of the golden ratio, modulo 1, are spread evenly, however many there are.
            snr, choice = self.levels[index % len(self.levels)], (index + 1) * _GOLDEN % 1
        else:
            snr, choice = rng.uniform(*self.snr_db), rng.random()
        length = speech.frames
        start = int(rng.integers(max(0, length - self.frames) + 1)) if self.frames else 0
        frames = self.frames or min(length, self.limit or length)
        clean = self.samples.piece(speech.path, length, start, frames)
        noise = self._noise(index, frames, choice, rng)
        level = max(active_rms(noise), 10 ** (SILENCE / 20))
        gain = 10 ** ((speech.info.active_level - snr) / 20) / level
        return clean, clean + np.float32(gain) * noise

    def _noise(self, index: int, frames: int, choice: float, rng: np.random.Generator) -> Signal:
        """Return noise (frames,) of the kind and file that `choice`, in [0, 1), stands for."""
        made, noise = self.babble + self.speech_shaped, np.zeros(0)
        if choice < self.babble:
            talkers = int(rng.integers(_TALKERS[0], _TALKERS[1] + 1))
            noise = babble(rng, frames, talkers, partial(self._talk, index, frames=frames))
        elif choice < made and len(voice := self._talk(index, rng, _LONG_TERM)):
            noise = shaped_like(rng, frames, voice.astype(np.float64))
        if noise.any():
            return noise.astype(np.float32)
        choice = choice / made if choice < made else (choice - made) / (1 - made)
        # The end of the last one is left out, as a product may be rounded up to it.
        file = self.noise[bisect(self._ends[:-1], choice * self._ends[-1])]
        if file.frames >= frames:
            start = _start_of_sound(file, frames, rng)
            return self.samples.piece(file.path, file.frames, start, frames)
        whole = self.samples.piece(file.path, file.frames, 0, file.frames)
        return np.resize(np.roll(whole, -int(rng.integers(len(whole)))), frames)

    @cached_property
    def _by_speaker(self) -> dict[str, list[Recording]]:
        grouped = defaultdict(list)
        for item in self.items:
            grouped[item.speaker].append(item)
        return dict(grouped)

    def _talk(self, index: int, rng: np.random.Generator, frames: int) -> Signal:
        """Return up to `frames` samples of another speaker, (s,); none if there is no other."""
        others = list(self._by_speaker)
        others.remove(self.items[index].speaker)
        if not others:
            return np.zeros(0, np.float32)
        items = self._by_speaker[others[rng.integers(len(others))]]
        item = items[rng.integers(len(items))]
        start = int(rng.integers(max(0, item.frames - frames) + 1))
        return self.samples.piece(item.path, item.frames, start, min(frames, item.frames))


def _start_of_sound(noise: Recording, frames: int, rng: np.random.Generator) -> int:
    """Return where a piece begins that holds sound, as `MixDataset` says."""
    width = -(-frames // FRAME)
    before = np.cumsum(np.append(0, noise.info.active))
    held = before[width:] - before[:-width]
    places = np.flatnonzero(held >= min(width / 4, held.max() / 2))
    return min(FRAME * int(rng.choice(places)), noise.frames - frames)


def babble(
    rng: np.random.Generator,
    samples: int,
    talkers: int,
    talk: Callable[[np.random.Generator], NDArray],
) -> NDArray[np.float64]:
    """Return people talking at once, (samples,), of unit RMS; zeros if none is heard.

    Levels spread by 8 dB. Each talker repeats what `talk` gives (s,), with a pause of up to 0.2 s.
    """
    voices = [talk(rng).astype(np.float64) for _ in range(talkers)]
    total = np.zeros(samples)
    for voice in voices:
        if power(voice) <= _SILENT:
            continue
        pause = np.zeros(int(rng.uniform(0.05, 0.2) * SAMPLE_RATE))
        turn = np.concatenate([voice / np.sqrt(np.mean(voice**2)), pause])
        talker = np.resize(np.roll(turn, -rng.integers(len(turn))), samples)
        total += talker * 10 ** (rng.uniform(-4, 4) / 20)
    rms = np.sqrt(np.mean(total**2))
    return total / rms if rms else total  # the piece may hold pauses only


def shaped_like(
    rng: np.random.Generator, samples: int, signal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return steady noise with the long-term spectrum of `signal` (s,), (samples,).

    The phases of the signal's discrete Fourier transform are replaced by random ones. The noise is
    periodic with the length of the transform, without a seam.
    """
    length = next_fast_len(len(signal), real=True)
    spectrum = rfft(signal, length)
    spectrum *= np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
    return np.resize(irfft(spectrum, length), samples)


def epoch_order(size: int, batch_size: int, seed: int, epoch: int) -> list[list[Key]]:
    """Return the keys of an epoch's batches. An incomplete last batch is dropped."""
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(size).tolist()
    starts = range(0, size - batch_size + 1, batch_size)
    return [[(epoch, index) for index in order[i : i + batch_size]] for i in starts]


class Loader:
    """Batches {"name": list, "clean": (b, s), "noisy": (b, s)} in the order of `epoch_order`.

    Args:
        batch_size: of all processes together.
        seed: of the orders.
        share: this process' part of every batch.
        workers: number of processes; with 0 the caller's own makes the examples.
        pin: whether to put batches into pinned memory.
    """

    def __init__(
        self,
        dataset: SpeechDataset,
        batch_size: int,
        seed: int,
        share: slice,
        workers: int,
        pin: bool,
    ) -> None:
        self._order = partial(epoch_order, len(dataset), batch_size, seed)
        self._share = share
        self._keys: list[list[Key]] = []  # of the batches to come
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._keys,
            num_workers=workers,
            multiprocessing_context=process_context() if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin,
            worker_init_fn=begin_worker,
        )

    def batches(self, epoch: int, start: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of an epoch, from number `start` on.

        Raises DataError if a file has changed, RuntimeError if a worker process dies.
        """
        self._keys[:] = [keys[self._share] for keys in self._order(epoch)[start:]]
        yield from self._loader
