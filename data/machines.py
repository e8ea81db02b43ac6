"""Sounds that last: vehicles, engines, rails, mains hum, wind, water. Signals are (s,) float64."""

from __future__ import annotations

import numpy as np

from data.rooms import SPEED_OF_SOUND
from data.sound import Signal, drift, harmonics, shaped, swelling, unit_rms


def vehicle(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """One pass-by, of about unit amplitude when nearest; Doppler effect by retarded time."""
    seconds = samples / rate
    time = np.arange(samples) / rate
    speed, nearest = rng.uniform(8, 20), rng.uniform(4, 12)
    travelled = speed * (time - rng.uniform(-0.1, 1.1) * seconds)
    distance = np.hypot(nearest, travelled)
    # The place at the time of hearing stands for that of emission: the vehicle is slow.
    emitted = time - distance / SPEED_OF_SOUND
    closeness = nearest / distance

    head = float(-emitted.min()) + 0.1
    source = np.arange(samples + int(head * rate) + 1) / rate - head
    peak = rng.uniform(600, 1200)
    tyres = shaped(rng, len(source), rate, lambda f: (f / peak) / (1 + (f / peak) ** 2.5))
    hiss = shaped(rng, len(source), rate, lambda f: f / (1 + (f / 2500) ** 3))
    # Air and ground absorb high frequencies, so that the hiss is heard from near by only.
    rolling = closeness * np.interp(emitted, source, tyres)
    rolling += 0.5 * closeness**2 * np.interp(emitted, source, hiss)

    firing = rng.uniform(30, 80)  # Hz: ignitions a second, from a lorry to a car
    turns = np.cumsum(1 + 0.03 * drift(rng, len(source), rate, 0.7)) / rate
    cycles = firing * np.interp(emitted, source, turns)
    strength = np.arange(1, 33) ** -0.8 * rng.uniform(0.2, 1.0, 32)
    strength[::2] *= 0.3  # half orders of the firing rate are what sets the cylinders apart
    engine = unit_rms(harmonics(rng, cycles / 2, strength))
    return rolling + rng.uniform(0.5, 1.4) * closeness * engine


def engine(rng: np.random.Generator, samples: int, rate: int, low: float, high: float) -> Signal:
    """A combustion engine near by, which fires at `low` to `high` Hz; unit RMS."""
    firing = low + (high - low) * swelling(rng, samples, rate, 0.25)
    firing *= 1 + 0.01 * drift(rng, samples, rate, 6)
    order = np.arange(1, 25)
    strength = order**-0.9 * rng.uniform(0.2, 1.0, len(order))
    strength[::2] *= 0.5  # half orders of the firing rate are what sets the cylinders apart
    return unit_rms(harmonics(rng, np.cumsum(firing) / rate / 2, strength))


def rails(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """Wheels of a bogie hitting rail joints in pairs, at a steady speed; unit RMS."""
    total = np.zeros(samples + rate)
    period, between = rng.uniform(0.6, 1.3), rng.uniform(0.09, 0.16)
    ringing = np.arange(int(0.15 * rate)) / rate
    body = rng.uniform([60, 180, 500], [110, 350, 1100])
    moments = np.arange(rng.uniform(0, period), samples / rate, period)
    for moment in moments if len(moments) else (0.0,):  # a short noise has one of them, too
        for lag, force in ((0.0, 1.0), (between, rng.uniform(0.5, 1.0))):
            start = int((moment + lag) * rate)
            modes = np.sin(2 * np.pi * body[:, None] * ringing) * np.array([[1.0], [0.7], [0.4]])
            blow = modes.sum(0) * np.exp(-ringing / 0.025)
            blow += 0.4 * rng.standard_normal(len(ringing)) * np.exp(-ringing / 0.008)
            total[start : start + len(blow)] += force * blow
    return unit_rms(total[:samples])


def whine(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """An electric motor and its converter: a gliding tone with a few strong harmonics; unit RMS."""
    glide = rng.uniform(150, 300) + rng.uniform(200, 600) * swelling(rng, samples, rate, 0.2)
    strength = np.array([1.0, 0.3, 0.5, 0.1, 0.25]) * rng.uniform(0.3, 1.0, 5)
    return unit_rms(harmonics(rng, np.cumsum(glide) / rate, strength))


def hum(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """Mains hum: harmonics of 50 or 60 Hz up to 2 kHz, a little unsteady, over hiss."""
    mains = rng.choice([50.0, 60.0])
    # Grids keep their frequency within some 0.1 %.
    frequency = mains * (1 + 3e-4 * drift(rng, samples, rate, 0.5))
    cycles = np.cumsum(frequency) / rate
    order = np.arange(1, int(2000 / mains) + 1)
    strength = order ** -rng.uniform(0.4, 1.0) * rng.lognormal(0, 0.7, len(order))
    # Transformers hum at even multiples, rectifiers and dimmers buzz at odd ones.
    strength *= np.where(order % 2 == rng.integers(2), 1.0, rng.uniform(0.1, 0.6))
    tones = unit_rms(harmonics(rng, cycles, strength))
    tones *= 1 + 0.08 * drift(rng, samples, rate, 3)
    slope = rng.uniform(0.0, 0.6)
    hiss = shaped(rng, samples, rate, lambda f: (f / 1000) ** -slope)
    return unit_rms(tones + 10 ** (rng.uniform(-16, -6) / 20) * hiss)


def wind(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """Wind at a microphone: gusts of low-frequency noise, the brighter the stronger they blow."""
    gusts = 0.5 * drift(rng, samples, rate, 0.6) + 0.25 * drift(rng, samples, rate, 4)
    corner = rng.uniform(50, 110)
    rumble = shaped(rng, samples, rate, lambda f: 1 / (1 + (f / corner) ** 2.5))
    rustle = shaped(rng, samples, rate, lambda f: (f / 400) / (1 + (f / 400) ** 2.2))
    share = rng.lognormal(-3.0, 0.7)
    return unit_rms(rumble * np.exp(gusts) + share * rustle * np.exp(1.6 * gusts))


def water(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """A tap running into a basin, opened and closed: hiss, and splashes that bubble; unit RMS."""
    peak = rng.uniform(1200, 2600)
    jet = shaped(rng, samples, rate, lambda f: (f / peak) / (1 + (f / peak) ** 2))
    splash = shaped(rng, samples, rate, lambda f: (f / 500) ** 2 / (1 + (f / 500) ** 4))
    bubbles = splash * np.exp(0.8 * drift(rng, samples, rate, 25))
    return unit_rms((jet + 0.7 * unit_rms(bubbles)) * (0.05 + swelling(rng, samples, rate, 0.4)))
