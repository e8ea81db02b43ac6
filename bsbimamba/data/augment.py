"""Augmentation of training examples; babble and speech-shaped noise.

Every slot of `Augment` is off by default. It has a probability, and a range from which its
parameter is drawn uniformly. Slots are applied in the order speed, babble, remix. Signals are (s,)
at 16 kHz. Everything random is drawn from the generator that is passed in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from bsbimamba.data.audio import SAMPLE_RATE, power
from bsbimamba.utils import DataError

Signal = NDArray[np.float64]
Talk = Callable[[np.random.Generator], NDArray]  # returns something that another speaker says, (s,)

# Mean square below which a signal has no level that another could be set against.
_SILENT = 1e-10
# A piece may hold a pause only; its noise is not made louder or softer than this to reach an SNR.
_MOST_GAIN_DB = 20.0
_BOUNDS = {
    "speed_by": (0.5, 2.0),
    "babble_talkers": (1, 20),
    "babble_snr_db": (-50.0, 100.0),
    "remix_snr_db": (-50.0, 100.0),
}


@dataclass(frozen=True)
class Augment:
    """Probabilities (0 to 1) and ranges (lowest and highest) of the slots.

    `speed` (a factor) changes target and input alike, `babble` adds other training speakers, and
    `remix` scales all the noise there is; their SNRs are those within the piece. Raises DataError
    if a value is out of bounds.
    """

    speed: float = 0.0
    speed_by: tuple[float, float] = (0.9, 1.1)
    babble: float = 0.0
    babble_talkers: tuple[int, int] = (3, 7)
    babble_snr_db: tuple[float, float] = (0.0, 20.0)
    remix: float = 0.0
    remix_snr_db: tuple[float, float] = (-5.0, 20.0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low, high = _BOUNDS.get(name, (0, 1))
            lowest, highest = value if name in _BOUNDS else (value, value)
            if not low <= lowest <= highest <= high:
                expected = f"{'a range' if name in _BOUNDS else 'a probability'} from {low:g}"
                raise DataError(f"augment.{name} is {value}, expected {expected} to {high:g}")


class Drawn:
    """What is to be done to one example of so many frames, drawn from a generator of its own.

    Attributes:
        nothing: whether the example is to stay as it is.
        source_frames: how many samples have to be read for it.
    """

    def __init__(self, settings: Augment, rng: np.random.Generator, frames: int) -> None:
        def draw(probability: float, low: float, high: float) -> float | None:
            # Both numbers are always drawn, so that one slot's probability changes no other slot.
            used, value = rng.random() < probability, rng.uniform(low, high)
            return value if used else None

        speed = draw(settings.speed, *settings.speed_by)
        self._babble_snr = draw(settings.babble, *settings.babble_snr_db)
        low, high = settings.babble_talkers
        self._talkers = int(rng.integers(low, high + 1))
        self._remix_snr = draw(settings.remix, *settings.remix_snr_db)
        # The rate that the recording is taken to have: a whole number, for the resampler's sake.
        self._rate = SAMPLE_RATE if speed is None else round(speed * SAMPLE_RATE)
        self._rng, self._frames = rng, frames
        self.source_frames = math.ceil(frames * self._rate / SAMPLE_RATE)
        slots = (speed, self._babble_snr, self._remix_snr)
        self.nothing = all(slot is None for slot in slots)

    def apply(self, clean: NDArray, noise: NDArray, talk: Talk) -> tuple[NDArray, NDArray]:
        """Return clean and noisy, (frames,) float32 each, of speech and noise (source_frames,)."""
        frames = self._frames
        both: Signal = np.stack([clean, noise]).astype(np.float64)
        if self._rate != SAMPLE_RATE:
            both = soxr.resample(both.T, self._rate, SAMPLE_RATE).T
            both = np.pad(both, ((0, 0), (0, max(0, frames - both.shape[1]))))[:, :frames]
        speech, rest = both
        if self._babble_snr is not None:
            others = babble(self._rng, frames, self._talkers, talk)
            rest = rest + others * _gain_to(speech, others, self._babble_snr, math.inf)
        if self._remix_snr is not None:
            rest = rest * _gain_to(speech, rest, self._remix_snr, _MOST_GAIN_DB)
        return speech.astype(np.float32), (speech + rest).astype(np.float32)


def _gain_to(clean: Signal, noise: Signal, snr_db: float, most_db: float) -> float:
    """Return the factor of a noise that gives this SNR; 1 where one of the two is silent."""
    powers = power(clean), power(noise)
    if min(powers) < _SILENT:
        return 1.0 if most_db < math.inf else 0.0
    gain_db = 10 * math.log10(powers[0] / powers[1]) - snr_db
    return 10 ** (max(-most_db, min(gain_db, most_db)) / 20)


def shaped_like(rng: np.random.Generator, samples: int, signal: Signal) -> Signal:
    """Return steady noise with the long-term spectrum of `signal` (s,), (samples,).

    The phases of the signal's discrete Fourier transform are replaced by random ones. The noise is
    periodic with the length of the transform, without a seam.
    """
    length = next_fast_len(len(signal), real=True)
    spectrum = rfft(signal, length)
    spectrum *= np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
    return np.resize(irfft(spectrum, length), samples)


def babble(rng: np.random.Generator, samples: int, talkers: int, talk: Talk) -> Signal:
    """Return people talking at once, (samples,), of unit RMS; zeros if none is heard.

    Levels spread by 8 dB. Each talker repeats what `talk` gives, with a pause of up to 0.2 s.
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
