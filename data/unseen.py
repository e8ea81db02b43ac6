"""Noises for testing: five kinds that no training of the embedded corpus has heard.

They are of the form of `data.noises`, and differ from those in what is heard, not in chance alone:
a television, typing, a diesel engine, the open air, bells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.events import bell, chirp, clink, ping, rustle, scattered, steps, tap, typing
from data.machines import engine, hum, vehicle, wind
from data.music import music
from data.rooms import Room, reverberate
from data.sound import Signal, bed, crowd, filtered, mixed, unit_rms

Rng = np.random.Generator
Talk = Sequence[Signal]


def living(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """A living room: a television with speech over music, and a clock."""
    shown = unit_rms(np.resize(unit_rms(talk[0]), samples))
    shown += 10 ** (rng.uniform(-10, 2) / 20) * music(rng, samples, rate)
    small = filtered(shown, rate, lambda f: 1 / (1 + (180 / f) ** 4) / (1 + (f / 6000) ** 4))
    room = Room(rng.uniform(4, 6), rng.uniform(3, 4.5), 2.5, rng.uniform(0.3, 0.5), 2.5)
    clock = np.zeros(samples)
    for start in np.arange(rng.uniform(0, rate), samples - rate // 4, rate).astype(int):
        tick = tap(rng, rate)
        clock[start : start + len(tick)] += tick
    return mixed(
        rng,
        [
            (bed(rng, samples, rate, rng.uniform(30, 80), rng.uniform(1.7, 2.2)), 0, 4),
            (reverberate(rng, small, room, rate), -11, -2),
            (clock, -26, -16),
        ],
    )


def office(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """An office: ventilation, computers, typing, and a colleague on the telephone."""
    room = Room(rng.uniform(4, 8), rng.uniform(3, 6), 2.7, rng.uniform(0.35, 0.6), 1.5)
    desk = typing(rng, samples, rate) + 0.3 * scattered(rng, samples, rate, 0.3, rustle)
    far = Room(room.length, room.width, room.height, room.decay, 4)
    colleague = crowd(rng, samples, rate, talk, 1.5)
    return mixed(
        rng,
        [
            (bed(rng, samples, rate, rng.uniform(30, 70), rng.uniform(1.8, 2.4)), 0, 2),
            (hum(rng, samples, rate), -22, -12),
            (reverberate(rng, desk, room, rate), -26, -14),
            (reverberate(rng, colleague, far, rate), -20, -10),
        ],
    )


def bus(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """Inside a city bus: a diesel engine that revs, panels that rattle, two passengers."""
    room = Room(11, 2.4, 2.2, rng.uniform(0.1, 0.2), 2)
    loose = scattered(rng, samples, rate, 5.0, tap) + scattered(rng, samples, rate, 0.15, ping)
    return mixed(
        rng,
        [
            (bed(rng, samples, rate, rng.uniform(30, 60), rng.uniform(2.0, 2.5)), 0, 0),
            (engine(rng, samples, rate, rng.uniform(18, 28), rng.uniform(50, 80)), -5, 1),
            (loose, -36, -26),
            (reverberate(rng, crowd(rng, samples, rate, talk, 1.5), room, rate), -30, -18),
        ],
    )


def cafe(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """A café in the open: voices and cups without a room, birds, a street not far away."""
    table = crowd(rng, samples, rate, talk, 1.0)
    table += 0.4 * scattered(rng, samples, rate, 1.5, clink)
    return mixed(
        rng,
        [
            (bed(rng, samples, rate, rng.uniform(40, 110), rng.uniform(1.5, 2.0)), 1, 4),
            (table, -8, -1),
            (scattered(rng, samples, rate, 0.6, chirp), -24, -14),
            (vehicle(rng, samples, rate), -12, -5),
        ],
    )


def square(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """A square: wind, steps on stone, bells, birds, people calling from far away."""
    around = Room(60, 40, 15, rng.uniform(0.8, 1.4), 12)
    far = 0.7 * crowd(rng, samples, rate, talk, 1.5)
    far += 0.5 * scattered(rng, samples, rate, 0.3, bell)
    walking = steps(rng, samples, rate) + steps(rng, samples, rate) + steps(rng, samples, rate)
    return mixed(
        rng,
        [
            (bed(rng, samples, rate, rng.uniform(40, 110), rng.uniform(1.5, 2.0)), 0, 2),
            (wind(rng, samples, rate), -6, 0),
            (reverberate(rng, far, around, rate), -14, -6),
            (walking, -20, -10),
            (scattered(rng, samples, rate, 0.4, chirp), -26, -16),
        ],
    )
