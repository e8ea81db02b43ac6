"""Augmentation of training examples; babble, speech-shaped noise and rooms.

Every slot of `Augment` is off by default. It has a probability, and a range from which its
parameter is drawn uniformly. Slots are applied in the order speed, room, babble, remix, band, gain.
Signals are (s,) at 16 kHz. Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import fftconvolve

from bsbimamba.data.audio import SAMPLE_RATE, power
from bsbimamba.utils import DataError

Signal = NDArray[np.float64]
Talk = Callable[[np.random.Generator], NDArray]  # returns something that another speaker says, (s,)

# Mean square below which a signal has no level that another could be set against.
_SILENT = 1e-10
_SPEED_OF_SOUND = 343.0  # m/s
_MIXING = 0.025  # s; images beyond the second mirrored room each way arrive later
# A piece may hold a pause only; its noise is not made louder or softer than this to reach an SNR.
_MOST_GAIN_DB = 20.0
_SLOPE = 0.15  # width of the low-pass' slope, relative to its cut-off
# Rooms from a bathroom to a hall, and how far from the microphone one speaks, in m.
_SMALLEST, _LARGEST = (2.0, 1.5, 2.2), (12.0, 8.0, 4.0)
_DISTANCE = (0.3, 2.0)
_BOUNDS = {
    "speed_by": (0.5, 2.0),
    "room_decay": (0.01, 2.0),
    "babble_talkers": (1, 20),
    "babble_snr_db": (-50.0, 100.0),
    "remix_snr_db": (-50.0, 100.0),
    "band_hz": (100.0, SAMPLE_RATE / 2),
    "gain_db": (-60.0, 60.0),
}


@dataclass(frozen=True)
class Augment:
    """Probabilities (0 to 1) and ranges (lowest and highest) of the slots.

    `speed` (a factor), `room` (its decay by 60 dB in s), `band` (a low-pass) and `gain` change
    target and input alike, so nothing here teaches a network to remove reverberation. `babble` adds
    other training speakers, and `remix` scales all the noise there is; their SNRs are those within
    the piece. Raises DataError if a value is out of bounds.
    """

    speed: float = 0.0
    speed_by: tuple[float, float] = (0.9, 1.1)
    room: float = 0.0
    room_decay: tuple[float, float] = (0.1, 0.5)
    babble: float = 0.0
    babble_talkers: tuple[int, int] = (3, 7)
    babble_snr_db: tuple[float, float] = (0.0, 20.0)
    remix: float = 0.0
    remix_snr_db: tuple[float, float] = (-5.0, 20.0)
    band: float = 0.0
    band_hz: tuple[float, float] = (2000.0, 7500.0)
    gain: float = 0.0
    gain_db: tuple[float, float] = (-10.0, 10.0)

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value = f"augment.{each.name}", getattr(self, each.name)
            low, high = _BOUNDS.get(each.name, (0, 1))
            ends = value if each.name in _BOUNDS else (value, value)
            if not (len(ends) == 2 and low <= ends[0] <= ends[1] <= high):
                what = "a range" if each.name in _BOUNDS else "a probability"
                raise DataError(f"{name} is {value}, expected {what} from {low:g} to {high:g}")


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
        self._decay = draw(settings.room, *settings.room_decay)
        self._babble_snr = draw(settings.babble, *settings.babble_snr_db)
        low, high = settings.babble_talkers
        self._talkers = int(rng.integers(low, high + 1))
        self._remix_snr = draw(settings.remix, *settings.remix_snr_db)
        self._band = draw(settings.band, *settings.band_hz)
        self._gain = draw(settings.gain, *settings.gain_db)
        # The rate that the recording is taken to have: a whole number, for the resampler's sake.
        self._rate = SAMPLE_RATE if speed is None else round(speed * SAMPLE_RATE)
        # One generator for each slot: what one draws changes nothing for the other.
        self._room_rng, self._babble_rng = rng.spawn(2)
        self._frames = frames
        self.source_frames = math.ceil(frames * self._rate / SAMPLE_RATE)
        slots = (speed, self._decay, self._babble_snr, self._remix_snr, self._band, self._gain)
        self.nothing = all(slot is None for slot in slots)

    def apply(self, clean: NDArray, noise: NDArray, talk: Talk) -> tuple[NDArray, NDArray]:
        """Return clean and noisy, (frames,) float32 each, of speech and noise (source_frames,)."""
        frames = self._frames
        both: Signal = np.stack([clean, noise]).astype(np.float64)
        if self._rate != SAMPLE_RATE:
            both = soxr.resample(both.T, self._rate, SAMPLE_RATE).T
            both = np.pad(both, ((0, 0), (0, max(0, frames - both.shape[1]))))[:, :frames]
        speech, rest = both
        if self._decay is not None:
            rng = self._room_rng
            size = rng.uniform(_SMALLEST, _LARGEST)
            heard = response(rng, size, self._decay, rng.uniform(*_DISTANCE))
            speech = fftconvolve(speech, heard)[:frames]
        if self._babble_snr is not None:
            others = babble(self._babble_rng, frames, self._talkers, talk)
            rest = rest + others * _gain_to(speech, others, self._babble_snr, math.inf)
        if self._remix_snr is not None:
            rest = rest * _gain_to(speech, rest, self._remix_snr, _MOST_GAIN_DB)
        if self._band is not None:
            speech, rest = _low_pass(np.stack([speech, rest]), self._band)
        gain = 1.0 if self._gain is None else 10 ** (self._gain / 20)
        return (gain * speech).astype(np.float32), (gain * (speech + rest)).astype(np.float32)


def _gain_to(clean: Signal, noise: Signal, snr_db: float, most_db: float) -> float:
    """Return the factor of a noise that gives this SNR; 1 where one of the two is silent."""
    powers = power(clean), power(noise)
    if min(powers) < _SILENT:
        return 1.0 if most_db < math.inf else 0.0
    gain_db = 10 * math.log10(powers[0] / powers[1]) - snr_db
    return 10 ** (max(-most_db, min(gain_db, most_db)) / 20)


def _low_pass(x: Signal, cutoff: float) -> Signal:
    """Remove from signals (..., s) what is above `cutoff` Hz; half a cosine below it leads to 0."""
    below = (cutoff - rfftfreq(x.shape[-1], 1 / SAMPLE_RATE)) / (_SLOPE * cutoff)
    gain = (1 - np.cos(np.pi * np.clip(below, 0, 1))) / 2
    return irfft(rfft(x) * gain, x.shape[-1])


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


def response(
    rng: np.random.Generator, size: NDArray | Sequence[float], decay: float, distance: float
) -> Signal:
    """Return the impulse response of a room, (decay * 16000,). It starts with the direct sound, 1.

    The early reflections are those of a shoebox by the image-source method (Allen and Berkley,
    "Image method for efficiently simulating small-room acoustics", JASA 65, 1979). From 25 ms on,
    where reflections are too dense to count, it is noise that decays exponentially (Polack's
    model). Its level follows from the room: there is no free parameter.

    Args:
        rng: draws where source and microphone are, and the tail.
        size: length, width and height in m.
        decay: time in s in which sound falls by 60 dB.
        distance: from source to microphone in m; less where a wall is nearer.
    """
    shape = np.array(size)
    surface = 2 * (shape[0] * shape[1] + shape[0] * shape[2] + shape[1] * shape[2])
    # Eyring's formula, solved for the share of energy that a wall absorbs.
    absorbed = 1 - np.exp(-0.161 * float(shape.prod()) / (surface * decay))
    microphone = rng.uniform(0.3, 0.7, 3) * shape
    way = rng.standard_normal(3) * [1, 1, 0.3]
    source = microphone + distance * way / np.linalg.norm(way)
    source = np.clip(source, 0.05 * shape, 0.95 * shape)

    cell = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, [0, 1], [0, 1], [0, 1]), -1).reshape(-1, 6)
    shift, mirrored = cell[:, :3], cell[:, 3:]
    image = (1 - 2 * mirrored) * source + 2 * shift * shape
    distances = np.linalg.norm(image - microphone, axis=1)
    bounces = (np.abs(shift - mirrored) + np.abs(shift)).sum(1)
    direct = float(np.linalg.norm(source - microphone))
    late = (distances - direct) / _SPEED_OF_SOUND
    strength = direct / distances * (1 - absorbed) ** (bounces / 2)
    early = (bounces > 0) & (late < min(_MIXING, decay / 3))

    samples = int(decay * SAMPLE_RATE)
    total = np.zeros(samples)
    place = late[early] * SAMPLE_RATE
    first = place.astype(int)
    part = place - first  # an image between two samples is shared by them
    np.add.at(total, first, (1 - part) * strength[early])
    np.add.at(total, np.minimum(first + 1, samples - 1), part * strength[early])

    time = np.arange(samples) / SAMPLE_RATE
    # The reverberant energy is that of the direct sound at the critical distance.
    ratio = 16 * np.pi * direct**2 / (surface * absorbed)
    fall = 6 * np.log(10) / decay
    energy = ratio * fall / SAMPLE_RATE * np.exp(-fall * (time + direct / _SPEED_OF_SOUND))
    energy[time < min(_MIXING, decay / 3)] = 0
    total += np.sqrt(energy) * _soft_noise(rng, samples)
    total[0] = 1.0
    return total


def _soft_noise(rng: np.random.Generator, samples: int) -> Signal:
    """Return noise (samples,) of unit RMS, above 20 Hz, that falls off around 4 kHz."""
    length = next_fast_len(samples + SAMPLE_RATE // 10, real=True)
    frequency = rfftfreq(length, 1 / SAMPLE_RATE)
    audible = frequency >= 20
    real, imaginary = rng.standard_normal((2, int(audible.sum())))
    spectrum = np.zeros(len(frequency), complex)
    spectrum[audible] = (real + 1j * imaginary) * (1 / (1 + frequency[audible] / 4000))
    noise = irfft(spectrum, length)[:samples]
    return noise / np.sqrt(np.mean(noise**2))
