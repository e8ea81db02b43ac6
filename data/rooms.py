"""Rooms: how a sound at some distance reaches a microphone.

A response has the early reflections of a shoebox by the image-source method (Allen and Berkley,
"Image method for efficiently simulating small-room acoustics", JASA 65, 1979) and, from 25 ms on,
where reflections are too dense to count, noise that decays exponentially (Polack's model). Its
level follows from the room: there is no free parameter. Signals are (s,) float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from data.sound import Signal, shaped

SPEED_OF_SOUND = 343.0  # m/s
_MIXING = 0.025  # s; images beyond the second mirrored room each way arrive later


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
    """The impulse response, (decay * rate,): the direct sound is a 1 at the start.

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
    """`signal` (s,) as heard in `room`, (s,): the direct sound keeps its time and level."""
    return fftconvolve(signal, response(rng, room, rate))[: len(signal)]
