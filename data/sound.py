"""What the embedded corpus's sounds are made of: levels, noise, filters, harmonics, crowds.

Signals are (s,) float64. Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

Signal = NDArray[np.float64]


def ambience(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """What is left when nobody makes a noise: ventilation, a distant road, a trace of hiss."""
    corner = rng.uniform(40, 120)
    hiss = rng.uniform(0.001, 0.005)
    return shaped(rng, samples, rate, lambda f: 1 / (1 + (f / corner) ** 2) + hiss)


def bed(rng: np.random.Generator, samples: int, rate: int, knee: float, slope: float) -> Signal:
    """The blend of all that is too far to be told apart: flat to `knee` Hz, then f^-slope."""
    return shaped(rng, samples, rate, lambda f: 1 / (1 + (f / knee) ** slope))


def drawn_between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two. NumPy takes -0.0 for less than 0.0, and refuses such a range."""
    return float(rng.uniform(low, high + 0.0))


def unit_rms(signal: Signal) -> Signal:
    """`signal` scaled to an RMS of 1. Raises ValueError if it is silent."""
    rms = np.sqrt(np.mean(signal**2)) if len(signal) else 0.0
    if rms == 0:
        raise ValueError("a silent signal has no level")
    return signal / rms


def filtered(signal: Signal, rate: int, gain: Callable[[Signal], NDArray]) -> Signal:
    """`signal` with its spectrum multiplied by gain(Hz), without delay; by gain(20) below."""
    length = next_fast_len(len(signal) + rate // 20, real=True)
    frequency = np.clip(rfftfreq(length, 1 / rate), 20, None)
    return irfft(rfft(signal, length) * gain(frequency), length)[: len(signal)]


def swelling(rng: np.random.Generator, samples: int, rate: int, hertz: float) -> Signal:
    """A gain between 0 and 1 that comes and goes some `hertz` times a second."""
    return 1 / (1 + np.exp(-4 * drift(rng, samples, rate, hertz)))


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


def shaped_like(rng: np.random.Generator, samples: int, signal: Signal) -> Signal:
    """Return steady noise with the long-term spectrum of `signal` (s,), (samples,).

    The phases of the signal's discrete Fourier transform are replaced by random ones. The noise is
    periodic with the length of the transform, without a seam.
    """
    length = next_fast_len(len(signal), real=True)
    spectrum = rfft(signal, length)
    spectrum *= np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
    return np.resize(irfft(spectrum, length), samples)


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


def mixed(rng: np.random.Generator, parts: Sequence[tuple[Signal, float, float]]) -> Signal:
    """The sum of signals, each at a level drawn between two numbers of dB; unit RMS.

    Silent ones, like a clock between two of its ticks, have no level and add nothing.
    """
    total = np.zeros(len(parts[0][0]))
    for part, low, high in parts:
        gain = 10 ** (rng.uniform(low, high) / 20)
        if part.any():
            total += gain * unit_rms(part)
    return unit_rms(total)


def crowd(
    rng: np.random.Generator, samples: int, rate: int, talk: Sequence[Signal], pause: float = 0.4
) -> Signal:
    """People talking at once, each with a level of its own (a spread of 8 dB).

    pause: in s, the longest that a talker is silent for between two turns.
    """
    total = np.zeros(samples)
    for voice in talk:
        silence = np.zeros(int(rng.uniform(0.05, pause) * rate))
        turn = np.concatenate([unit_rms(voice), silence])
        talker = np.resize(np.roll(turn, -rng.integers(len(turn))), samples)
        total += talker * 10 ** (rng.uniform(-4, 4) / 20)
    return total


def tone(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """What a room sounds like when nothing happens in it."""
    return bed(rng, samples, rate, rng.uniform(60, 160), rng.uniform(1.3, 1.8))
