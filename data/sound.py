"""What the embedded corpus's sounds are made of: levels, coloured noise, harmonics, rooms.

Signals are (s,) float64. Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfftfreq
from scipy.signal import fftconvolve

Signal = NDArray[np.float64]


def ambience(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """What is left when nobody makes a noise: ventilation, a distant road, a trace of hiss."""
    corner = rng.uniform(40, 120)
    hiss = rng.uniform(0.001, 0.005)
    return shaped(rng, samples, rate, lambda f: 1 / (1 + (f / corner) ** 2) + hiss)


def in_ambience(
    rng: np.random.Generator, signal: Signal, rate: int, low: float, high: float
) -> Signal:
    """`signal` with ambience of a level drawn from `low` to `high` dB against its own; unit RMS."""
    level = 10 ** (rng.uniform(low, high) / 20)
    return unit_rms(unit_rms(signal) + level * ambience(rng, len(signal), rate))


def unit_rms(signal: Signal) -> Signal:
    """`signal` scaled to an RMS of 1. Raises ValueError if it is silent."""
    rms = np.sqrt(np.mean(signal**2)) if len(signal) else 0.0
    if rms == 0:
        raise ValueError("a silent signal has no level")
    return signal / rms


def reverberate(
    rng: np.random.Generator, signal: Signal, rate: int, decay: float, level: float
) -> Signal:
    """Add the sound of a room: noise decaying exponentially (Polack's model), `samples` kept.

    Args:
        rng: draws the room's response.
        signal: (s,), any level.
        rate: sampling rate in Hz.
        decay: time in s in which the reverberation falls by 60 dB.
        level: energy of the reverberation against that of the direct sound, in dB.
    """
    length = int(decay * rate)
    response = shaped(rng, length, rate, lambda f: 1 / (1 + f / 2500))  # walls and air damp
    response *= 10 ** (-3 * np.arange(length) / length)
    response *= 10 ** (level / 20) / np.linalg.norm(response)
    first = int(0.003 * rate)  # the first reflection comes 3 ms, 1 m of path, after the sound
    wet = fftconvolve(signal, response)[: len(signal) - first]
    return signal + np.concatenate([np.zeros(first), wet])


def shaped(
    rng: np.random.Generator, samples: int, rate: int, gain: Callable[[Signal], Signal]
) -> Signal:
    """Gaussian noise with the amplitude spectrum gain(Hz) above 20 Hz, (samples,), unit RMS."""
    length = next_fast_len(samples + rate // 10, real=True)
    frequency = rfftfreq(length, 1 / rate)
    audible = frequency >= 20
    spectrum = rng.standard_normal((2, int(audible.sum())))
    shaped = np.zeros(len(frequency), complex)
    shaped[audible] = (spectrum[0] + 1j * spectrum[1]) * gain(frequency[audible])
    return unit_rms(irfft(shaped, length)[:samples])


def harmonics(
    rng: np.random.Generator, cycles: Signal, strength: Signal, damping: Signal | float = 0.0
) -> Signal:
    """The sum of harmonics k = 1 ... h at random phases, (s,).

    It is a polynomial in exp(2πi cycles - damping), which takes one complex product a harmonic in
    place of a cosine and an exponential.

    Args:
        rng: draws the phases.
        cycles: (s,), the periods of the fundamental until then.
        strength: (h,), amplitudes.
        damping: (s,), harmonic k is multiplied by exp(-k damping).
    """
    phasors = strength * np.exp(2j * np.pi * rng.uniform(size=len(strength)))
    turning = np.exp(2j * np.pi * cycles - damping)
    return np.real(np.polynomial.polynomial.polyval(turning, np.r_[0, phasors]))


def drift(rng: np.random.Generator, samples: int, rate: int, hertz: float) -> Signal:
    """A smooth random curve of about unit variance that turns some `hertz` times a second."""
    knots = rng.standard_normal(int(samples / rate * 2 * hertz) + 4)
    place = np.arange(samples) * (2 * hertz / rate) + rng.uniform()
    index = place.astype(int)
    weight = (1 - np.cos(np.pi * (place - index))) / 2
    # A cosine-interpolated curve has 3/4 of the variance of its knots.
    return (knots[index] * (1 - weight) + knots[index + 1] * weight) / np.sqrt(0.75)
