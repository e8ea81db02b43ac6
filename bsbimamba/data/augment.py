"""Augmentation of training examples.

Every slot is off by default. It has a probability, and a range from which its parameter is drawn
uniformly. They are applied in the order speed, room, babble, remix, band, gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, rfft, rfftfreq
from scipy.signal import fftconvolve

from bsbimamba.data.sound import (
    SAMPLE_RATE,
    SILENT,
    Signal,
    Talk,
    babble,
    drawn_between,
    power,
    response,
)
from bsbimamba.utils import DataError

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

    Attributes:
        speed, speed_by: faster and higher by a factor; speech and noise alike.
        room, room_decay: a room's reverberation, its decay by 60 dB in s. It is part of the target,
            too: nothing here teaches a network to remove it.
        babble, babble_talkers, babble_snr_db: so many other training speakers in the background.
        remix, remix_snr_db: all the noise there is, the pair's own, at another SNR.
        band, band_hz: a low-pass, of target and input.
        gain, gain_db: louder or softer, target and input.

    SNRs are those within the piece.

    Raises:
        DataError: a probability or a range is out of bounds.
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
            if each.name not in _BOUNDS:
                if not low <= value <= high:
                    raise DataError(f"{name} is {value}, expected a probability, 0 to 1")
            elif not (len(value) == 2 and low <= value[0] <= value[1] <= high):
                raise DataError(
                    f"{name} is {value}, expected a lowest and a highest value, "
                    f"from {low:g} to {high:g}"
                )


class Drawn:
    """What is to be done to one example, drawn from a generator of its own.

    Args:
        settings: the slots.
        rng: draws which of them are used, and with what.
        frames: wanted of the example.

    Attributes:
        nothing: whether the example is to stay as it is.
        source_frames: how many samples have to be read for it.
    """

    def __init__(self, settings: Augment, rng: np.random.Generator, frames: int) -> None:
        def draw(probability: float, low: float, high: float) -> float | None:
            # Both numbers are always drawn, so that one slot's probability changes no other slot.
            used, value = rng.random() < probability, drawn_between(rng, low, high)
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
        """Return clean and noisy, (frames,) float32 each, of speech and noise (source_frames,).

        talk: gives something that another speaker says, (s,).
        """
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
    if min(powers) < SILENT:
        return 1.0 if most_db < math.inf else 0.0
    gain_db = 10 * math.log10(powers[0] / powers[1]) - snr_db
    return 10 ** (max(-most_db, min(gain_db, most_db)) / 20)


def _low_pass(x: Signal, cutoff: float) -> Signal:
    """Remove from signals (..., s) what is above `cutoff` Hz; half a cosine below it leads to 0."""
    below = (cutoff - rfftfreq(x.shape[-1], 1 / SAMPLE_RATE)) / (_SLOPE * cutoff)
    gain = (1 - np.cos(np.pi * np.clip(below, 0, 1))) / 2
    return irfft(rfft(x) * gain, x.shape[-1])
