"""Noises for the embedded corpus: fifteen places and kinds, after those of VoiceBank-DEMAND.

Ten are for training: two artificial ones and eight like DEMAND's kitchen, meeting room, cafeteria,
restaurant, station, car, metro and street (Thiemann, Ito and Vincent, "The diverse environments
multi-channel acoustic noise database", ICA 2013). Five are for testing and differ in what is heard
in them: a living room with its television, an office, a bus, a café in the open, a square.

Each is a function `(rng, samples, rate, talk) -> (samples,)` float64 of unit RMS. talk: recordings
of people (s_i,), not silent, as many as `TALKERS` asks for. All parameters come from `rng`, so that
equal arguments give equal noises. Loops run over events, never over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data.events import clink, rustle, scattered, scrape, steps, tap, thud
from data.machines import engine, hum, rails, vehicle, water, whine
from data.rooms import Room, reverberate
from data.sound import Signal, bed, crowd, drift, filtered, mixed, shaped, swelling, tone, unit_rms
from data.unseen import bus, cafe, living, office, square

Rng = np.random.Generator
Talk = Sequence[Signal]


def speech_shaped(rng: Rng, samples: int, rate: int, talk: Talk = ()) -> Signal:
    """Steady noise with the average spectrum of speech."""
    knee, floor = rng.uniform(550, 850), rng.uniform(0.03, 0.07)

    def gain(f: Signal) -> Signal:
        return (f / (f + 40)) ** 2 * (1 / (1 + (f / knee) ** 2) + floor)

    return shaped(rng, samples, rate, gain)


def babble(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """Several people at once, recorded one by one in a studio."""
    return unit_rms(crowd(rng, samples, rate, talk, 0.2))


def kitchen(rng: Rng, samples: int, rate: int, talk: Talk = ()) -> Signal:
    """Somebody at work with dishes and running water, beside a refrigerator."""
    near = scattered(rng, samples, rate, 1.5, clink)
    near += 0.5 * scattered(rng, samples, rate, 0.4, thud)
    room = Room(rng.uniform(2.5, 4.5), rng.uniform(2.2, 3.5), 2.5, rng.uniform(0.35, 0.6), 1.2)
    return mixed(
        rng,
        [
            (tone(rng, samples, rate), -3, 3),
            (reverberate(rng, near, room, rate), -14, -4),
            (water(rng, samples, rate), -20, -8),
            (hum(rng, samples, rate), -14, -6),
        ],
    )


def meeting(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """People around a large table: one speaks at a time, papers are turned, a fan blows."""
    turns = unit_rms(np.resize(np.concatenate([unit_rms(voice) for voice in talk]), samples))
    room = Room(rng.uniform(6, 9), rng.uniform(4, 6), 2.8, rng.uniform(0.4, 0.8), 2.5)
    handled = scattered(rng, samples, rate, 0.5, rustle) + scattered(rng, samples, rate, 0.7, tap)
    return mixed(
        rng,
        [
            (tone(rng, samples, rate), -4, 2),
            (reverberate(rng, np.roll(turns, -rng.integers(samples)), room, rate), -2, 3),
            (handled, -16, -6),
        ],
    )


def cafeteria(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """A large hall at noon: voices that blend, trays, chairs."""
    room = Room(rng.uniform(14, 25), rng.uniform(9, 15), 4, rng.uniform(0.9, 1.5), 6)
    things = scattered(rng, samples, rate, 2.5, clink) + scattered(rng, samples, rate, 0.4, scrape)
    return mixed(
        rng,
        [
            (tone(rng, samples, rate), -5, 1),
            (reverberate(rng, crowd(rng, samples, rate, talk), room, rate), -1, 2),
            (reverberate(rng, things, room, rate), -14, -5),
        ],
    )


def restaurant(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """Tables near by: single voices stand out, and much cutlery."""
    room = Room(rng.uniform(8, 13), rng.uniform(6, 9), 3, rng.uniform(0.5, 0.9), 2.5)
    people = crowd(rng, samples, rate, talk, 1.5)
    people += 0.5 * scattered(rng, samples, rate, 4.0, clink)
    return mixed(
        rng,
        [(tone(rng, samples, rate), -6, 0), (reverberate(rng, people, room, rate), -1, 2)],
    )


def station(rng: Rng, samples: int, rate: int, talk: Talk) -> Signal:
    """An underground platform: a train comes or goes, steps, an announcement that echoes."""
    room = Room(rng.uniform(30, 60), rng.uniform(10, 18), 6, rng.uniform(1.4, 2.2), 8)
    announced = filtered(
        np.resize(unit_rms(talk[0]), samples),
        rate,
        lambda f: 1 / np.sqrt((1 + (400 / f) ** 6) * (1 + (f / 3200) ** 6)),
    )
    walking = steps(rng, samples, rate) + steps(rng, samples, rate)
    train = bed(rng, samples, rate, rng.uniform(90, 250), rng.uniform(1.3, 1.8))
    return mixed(
        rng,
        [
            (train * (0.3 + swelling(rng, samples, rate, 0.15)), -1, 2),
            (reverberate(rng, announced, room, rate), -12, -4),
            (reverberate(rng, walking, room, rate), -16, -6),
            (reverberate(rng, crowd(rng, samples, rate, talk[1:]), room, rate), -12, -4),
        ],
    )


def car(rng: Rng, samples: int, rate: int, talk: Talk = ()) -> Signal:
    """Inside a car: deep rumble of the road, the engine, a little air."""
    rumble = bed(rng, samples, rate, rng.uniform(25, 50), rng.uniform(2.2, 2.9))
    road = rumble * np.exp(0.2 * drift(rng, samples, rate, 2))
    return mixed(
        rng,
        [
            (road, 0, 0),
            (engine(rng, samples, rate, 25, rng.uniform(40, 90)), -24, -12),
            (bed(rng, samples, rate, 400, 1.5), -44, -32),
        ],
    )


def metro(rng: Rng, samples: int, rate: int, talk: Talk = ()) -> Signal:
    """Inside an underground train: roaring, rail joints, the whine of its motors."""
    roar = bed(rng, samples, rate, rng.uniform(100, 250), rng.uniform(1.4, 1.9))
    return mixed(
        rng,
        [
            (roar * np.exp(0.4 * drift(rng, samples, rate, 0.8)), 0, 0),
            (rails(rng, samples, rate), -8, -1),
            (whine(rng, samples, rate), -18, -8),
        ],
    )


def traffic(rng: Rng, samples: int, rate: int, talk: Talk = ()) -> Signal:
    """A road: distant rumble, and vehicles passing at 4 to 12 m and 8 to 20 m/s."""
    road = bed(rng, samples, rate, rng.uniform(50, 150), rng.uniform(1.4, 2.0))
    total = road * np.exp(0.25 * drift(rng, samples, rate, 0.5))
    for _ in range(1 + rng.poisson(samples / rate / 3)):
        total += rng.lognormal(-1.2, 0.7) * unit_rms(vehicle(rng, samples, rate))
    return unit_rms(total)


# Every kind, and the fewest and most people that are heard in it.
NOISES: dict[str, Callable[[Rng, int, int, Talk], Signal]] = {
    kind.__name__: kind
    for kind in (
        *(speech_shaped, babble, kitchen, meeting, cafeteria, restaurant, station, car, metro),
        *(traffic, living, office, bus, cafe, square),
    )
}
TALKERS = {
    "babble": (5, 7),
    "meeting": (2, 3),
    "cafeteria": (6, 8),
    "restaurant": (4, 6),
    "station": (2, 3),
    "living": (1, 1),
    "office": (1, 1),
    "bus": (2, 2),
    "cafe": (3, 4),
    "square": (2, 3),
}
