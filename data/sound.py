"""Make noise and rooms for mixing and augmentation. Signals are (s,) float64.

Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import fftconvolve

Signal = NDArray[np.float64]

SPEED_OF_SOUND = 343.0  # m/s
_MIXING = 0.025  # s; images beyond the second mirrored room each way arrive later


def drawn_between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between two. NumPy takes -0.0 for less than 0.0, and refuses such a range."""
    return float(rng.uniform(low, high + 0.0))


def unit_rms(signal: Signal) -> Signal:
    """Return `signal` scaled to an RMS of 1. Raise ValueError if it is silent."""
    rms = np.sqrt(np.mean(signal**2)) if len(signal) else 0.0
    if rms == 0:
        raise ValueError("a silent signal has no level")
    return signal / rms


def shaped(
    rng: np.random.Generator, samples: int, rate: int, gain: Callable[[Signal], Signal]
) -> Signal:
    """Return noise of the amplitude spectrum gain(Hz) above 20 Hz, (samples,), of unit RMS."""
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


def babble(rng: np.random.Generator, samples: int, rate: int, talk: Sequence[Signal]) -> Signal:
    """Return people talking at once, (samples,), unit RMS.

    Levels spread by 8 dB. Each talker repeats `talk[i]` (s_i,) with a pause of up to 0.2 s.

    Raises:
        ValueError: a talker is silent, or there is none.
    """
    total = np.zeros(samples)
    for voice in talk:
        pause = np.zeros(int(rng.uniform(0.05, 0.2) * rate))
        turn = np.concatenate([unit_rms(voice), pause])
        talker = np.resize(np.roll(turn, -rng.integers(len(turn))), samples)
        total += talker * 10 ** (rng.uniform(-4, 4) / 20)
    return unit_rms(total)


@dataclass(frozen=True)
class Room:
    """A room, and where one listens in it.

    length, width, height: in m. decay: time in s in which sound falls by 60 dB. distance: in m,
    from the source to the microphone; less where a wall is nearer.
    """

    length: float
    width: float
    height: float
    decay: float
    distance: float


def response(rng: np.random.Generator, room: Room, rate: int = 16000) -> Signal:
    """Return the impulse response of a room, (decay * rate,). The direct sound is a 1 at the start.

    The early reflections are those of a shoebox by the image-source method (Allen and Berkley,
    "Image method for efficiently simulating small-room acoustics", JASA 65, 1979). From 25 ms on,
    where reflections are too dense to count, it is noise that decays exponentially (Polack's
    model). Its level follows from the room: there is no free parameter.

    Args:
        rng: draws where source and microphone are, and the tail.
        room: see `Room`.
        rate: sampling rate in Hz.
    """
    size = np.array([room.length, room.width, room.height])
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    volume = float(size.prod())
    # Eyring's formula, solved for the share of energy that a wall absorbs.
    absorbed = 1 - np.exp(-0.161 * volume / (surface * room.decay))
    microphone = rng.uniform(0.3, 0.7, 3) * size
    way = rng.standard_normal(3) * [1, 1, 0.3]
    source = microphone + room.distance * way / np.linalg.norm(way)
    source = np.clip(source, 0.05 * size, 0.95 * size)

    cell = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, [0, 1], [0, 1], [0, 1]), -1).reshape(-1, 6)
    shift, mirrored = cell[:, :3], cell[:, 3:]
    image = (1 - 2 * mirrored) * source + 2 * shift * size
    distance = np.linalg.norm(image - microphone, axis=1)
    bounces = (np.abs(shift - mirrored) + np.abs(shift)).sum(1)
    direct = float(np.linalg.norm(source - microphone))
    late = (distance - direct) / SPEED_OF_SOUND
    strength = direct / distance * (1 - absorbed) ** (bounces / 2)
    early = (bounces > 0) & (late < min(_MIXING, room.decay / 3))

    samples = int(room.decay * rate)
    total = np.zeros(samples)
    place = late[early] * rate
    first = place.astype(int)
    part = place - first  # an image between two samples is shared by them
    np.add.at(total, first, (1 - part) * strength[early])
    np.add.at(total, np.minimum(first + 1, samples - 1), part * strength[early])

    time = np.arange(samples) / rate
    # The reverberant energy is that of the direct sound at the critical distance.
    ratio = 16 * np.pi * direct**2 / (surface * absorbed)
    fall = 6 * np.log(10) / room.decay
    energy = ratio * fall / rate * np.exp(-fall * (time + direct / SPEED_OF_SOUND))
    energy[time < min(_MIXING, room.decay / 3)] = 0
    total += np.sqrt(energy) * shaped(rng, samples, rate, lambda f: 1 / (1 + f / 4000))
    total[0] = 1.0
    return total


def reverberate(rng: np.random.Generator, signal: Signal, room: Room, rate: int = 16000) -> Signal:
    """Return `signal` (s,) as heard in `room`, (s,). The direct sound keeps its time and level."""
    return fftconvolve(signal, response(rng, room, rate))[: len(signal)]
