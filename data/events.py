"""Sounds that happen: things hit, dropped, typed, rung, sung by birds. Signals are (s,) float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.sound import Signal, shaped

Event = Callable[[np.random.Generator, int], Signal]


def scattered(
    rng: np.random.Generator, samples: int, rate: int, per_second: float, event: Event
) -> Signal:
    """Events at random times, of levels that spread by 5 dB, (samples,). There is at least one."""
    total = np.zeros(samples)
    for _ in range(max(1, rng.poisson(per_second * samples / rate))):
        start = int(rng.uniform(0, 0.95) * samples)
        sound = rng.lognormal(0, 0.6) * event(rng, rate)[: samples - start]
        total[start : start + len(sound)] += sound
    return total


def struck(
    rng: np.random.Generator, rate: int, modes: Signal, decay: float, noise: float = 0.3
) -> Signal:
    """Something hit: damped resonances at `modes` Hz, lower ones for longer, and the blow itself.

    decay: time constant of the lowest mode in s. noise: amplitude of the blow, which lasts 2 ms.
    """
    time = np.arange(int(5 * decay * rate)) / rate
    modes = np.sort(modes)
    fading = decay * (modes[0] / modes) ** 0.7 * rng.uniform(0.7, 1.3, len(modes))
    strength = rng.uniform(0.3, 1.0, len(modes))
    phase = rng.uniform(0, 2 * np.pi, (len(modes), 1))
    ringing = np.cos(2 * np.pi * modes[:, None] * time + phase) * np.exp(-time / fading[:, None])
    blow = noise * rng.standard_normal(len(time)) * np.exp(-time / 0.002)
    return (strength[:, None] * ringing).sum(0) + blow


def clink(rng: np.random.Generator, rate: int) -> Signal:
    """Cutlery, cups, glasses: a few high modes."""
    return struck(rng, rate, rng.uniform(1200, 0.46 * rate, 5), rng.uniform(0.015, 0.09), 0.5)


def thud(rng: np.random.Generator, rate: int) -> Signal:
    """A cupboard, a door, a foot on a stage."""
    return 2 * struck(rng, rate, rng.uniform(60, 500, 4), rng.uniform(0.03, 0.08), 0.2)


def tap(rng: np.random.Generator, rate: int) -> Signal:
    """A pen or a finger on a table, a heel on stone."""
    return struck(rng, rate, rng.uniform(300, 2800, 5), rng.uniform(0.006, 0.015), 0.6)


def rustle(rng: np.random.Generator, rate: int) -> Signal:
    """Paper or cloth: a burst of crackling hiss."""
    samples = int(rng.uniform(0.15, 0.5) * rate)
    hiss = shaped(rng, samples, rate, lambda f: (f / 3000) / (1 + (f / 3000) ** 2))
    crackle = np.repeat(rng.lognormal(0, 0.8, samples // 80 + 1), 80)[:samples]
    return 0.3 * hiss * crackle * np.sin(np.pi * np.arange(samples) / samples) ** 2


def scrape(rng: np.random.Generator, rate: int) -> Signal:
    """A chair drawn over the floor: a stick-slip buzz through a wooden body."""
    samples = int(rng.uniform(0.2, 0.6) * rate)
    slips = np.cumsum(rng.uniform(90, 220) * (1 + 0.2 * rng.standard_normal(samples)) / rate)
    pulses = np.diff(np.floor(slips), prepend=0.0) * rng.lognormal(0, 0.4, samples)
    body = struck(rng, rate, rng.uniform(250, 3000, 5), 0.006, 0.3)
    return np.convolve(pulses, body)[:samples] * np.sin(np.pi * np.arange(samples) / samples)


def chirp(rng: np.random.Generator, rate: int) -> Signal:
    """A bird: a few swept notes between 2 and 6 kHz."""
    notes = []
    centre = rng.uniform(2300, 0.3 * rate)
    for _ in range(rng.integers(2, 7)):
        time = np.arange(int(rng.uniform(0.04, 0.13) * rate)) / rate
        sweep = rng.uniform(-9000, 9000) * (time - time[-1] / 2)
        wobble = rng.uniform(0, 400) * np.sin(2 * np.pi * rng.uniform(20, 60) * time)
        note = np.sin(2 * np.pi * np.cumsum(centre + sweep + wobble) / rate)
        notes += [note * np.hanning(len(time)), np.zeros(int(rng.uniform(0.02, 0.12) * rate))]
    return 0.6 * np.concatenate(notes)


def bell(rng: np.random.Generator, rate: int) -> Signal:
    """A church bell: hum, prime, tierce, quint, nominal and three more partials."""
    prime = rng.uniform(250, 600)
    partials = prime * np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.2])
    return struck(rng, rate, partials, rng.uniform(0.3, 0.6), 0.1)


def ping(rng: np.random.Generator, rate: int) -> Signal:
    """An electric signal: two tones, one after the other."""
    time = np.arange(int(0.3 * rate)) / rate
    high = rng.uniform(600, 1500)
    tones = [np.sin(2 * np.pi * pitch * time) for pitch in (high, 0.8 * high)]
    return np.concatenate([tone * np.exp(-time / 0.12) for tone in tones])


def steps(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """Somebody walking by: heels at 1.6 to 2.2 steps a second, nearest somewhere on the way."""
    total = np.zeros(samples + rate)
    pace, seconds = 1 / rng.uniform(1.6, 2.2), samples / rate
    shoe = rng.uniform([90, 400, 1200, 2500], [200, 900, 2200, 3800])
    nearest = rng.uniform(0, seconds)
    for moment in np.arange(rng.uniform(0, pace), seconds, pace):
        start = int((moment + rng.normal(0, 0.015)) * rate) if moment > 0.1 else int(moment * rate)
        near = 1 / (1 + (moment - nearest) ** 2 / 4)
        step = struck(rng, rate, shoe * rng.uniform(0.92, 1.08, 4), 0.012, 0.8)
        total[start : start + len(step)] += near * rng.uniform(0.7, 1.3) * step
    return total[:samples]


def typing(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """Key strokes, down and up, in bursts."""
    body = rng.uniform([120, 700, 1800, 3500], [300, 1500, 3200, 6500])  # Hz, of this keyboard
    body = np.minimum(body, 0.48 * rate)
    total = np.zeros(samples + rate)
    time = rng.uniform(0.0, 0.15)
    pace = rng.uniform(0.10, 0.2)
    while time < samples / rate:
        force, held = rng.lognormal(0, 0.3), rng.uniform(0.06, 0.13)
        for moment, strength, pitch in ((time, force, 1.0), (time + held, 0.45 * force, 1.15)):
            start = int(moment * rate)
            modes = body * pitch * rng.uniform(0.93, 1.07, 4)
            click = strength * struck(rng, rate, modes, 0.012, 1.0)
            total[start : start + len(click)] += click
        time += pace * rng.lognormal(0, 0.35)
        if rng.random() < 0.08:
            time += rng.uniform(0.2, 0.6)
    return total[:samples]
