"""Noises for the embedded corpus: seven classes, each made from a random generator.

Every class is a function `(rng, samples, rate) -> (s,)` float64 of unit RMS; `babble` also takes
the speech it is made of. All parameters come from `rng`, so that equal generators give equal
noises. Loops run over events (voices, vehicles, keys, notes), never over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data.sound import Signal, drift, harmonics, in_ambience, reverberate, shaped, unit_rms

_SPEED_OF_SOUND = 343.0  # m/s


def babble(
    rng: np.random.Generator, samples: int, rate: int = 16000, *, speech: Sequence[Signal]
) -> Signal:
    """Several people talking at once in a room with its ambience.

    Args:
        rng: draws each talker's level (a spread of 8 dB), starting point, pauses and the room.
        samples: length of the result.
        rate: sampling rate in Hz.
        speech: one recording a talker, each (s_i,) and not silent; shorter ones are repeated.

    Returns:
        (samples,), unit RMS.
    """
    total = np.zeros(samples)
    for talk in speech:
        pause = np.zeros(int(rng.uniform(0.05, 0.4) * rate))
        turn = np.concatenate([unit_rms(talk), pause])
        start = rng.integers(len(turn))
        talker = np.resize(np.roll(turn, -start), samples)
        total += talker * 10 ** (rng.uniform(-4, 4) / 20)
    room = reverberate(rng, total, rate, decay=rng.uniform(0.3, 0.8), level=-2.0)
    return in_ambience(rng, room, rate, -3, 10)


def traffic(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """A road: distant rumble, and vehicles passing at 4 to 12 m and 8 to 20 m/s."""
    seconds = samples / rate
    corner = rng.uniform(40, 120)
    road = shaped(rng, samples, rate, lambda f: 1 / (1 + (f / corner) ** 2))
    total = road * np.exp(0.25 * drift(rng, samples, rate, 0.5))
    for _ in range(1 + rng.poisson(seconds / 3)):
        total += rng.lognormal(-1.6, 0.9) * _vehicle(rng, samples, rate)
    return unit_rms(total)


def _vehicle(rng: np.random.Generator, samples: int, rate: int) -> Signal:
    """One pass-by, of about unit amplitude when nearest; Doppler effect by retarded time."""
    seconds = samples / rate
    time = np.arange(samples) / rate
    speed, nearest = rng.uniform(8, 20), rng.uniform(4, 12)
    travelled = speed * (time - rng.uniform(-0.1, 1.1) * seconds)
    distance = np.hypot(nearest, travelled)
    # The place at the time of hearing stands for that of emission: the vehicle is slow.
    emitted = time - distance / _SPEED_OF_SOUND
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


def keyboard(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """Typing: key strokes (down and up) in bursts, over the ambience of the room."""
    body = rng.uniform([120, 700, 1800, 3500], [300, 1500, 3200, 6500])  # Hz, of this keyboard
    total = np.zeros(samples + rate)
    time = rng.uniform(0.0, 0.15)
    pace = rng.uniform(0.10, 0.2)
    while time < samples / rate:
        force = rng.lognormal(0, 0.3)
        held = rng.uniform(0.06, 0.13)
        for moment, strength, pitch in ((time, force, 1.0), (time + held, 0.45 * force, 1.15)):
            start = int(moment * rate)
            click = strength * _click(rng, rate, body * pitch * rng.uniform(0.93, 1.07, 4))
            total[start : start + len(click)] += click[: len(total) - start]
        time += pace * rng.lognormal(0, 0.35)
        if rng.random() < 0.08:
            time += rng.uniform(0.2, 0.6)
    clicks = reverberate(rng, total[:samples], rate, decay=rng.uniform(0.15, 0.4), level=-8.0)
    return in_ambience(rng, clicks, rate, 0, 14)


def _click(rng: np.random.Generator, rate: int, resonances: Signal) -> Signal:
    """Plastic hitting plastic: damped resonances (Hz) excited by a burst of 2 ms."""
    time = np.arange(int(0.06 * rate)) / rate
    decay = np.array([0.012, 0.006, 0.004, 0.003])[:, None] * rng.uniform(0.7, 1.4, (4, 1))
    strength = np.array([0.5, 1.0, 0.9, 0.6])[:, None] * rng.uniform(0.5, 1.5, (4, 1))
    phase = rng.uniform(0, 2 * np.pi, (4, 1))
    ringing = np.cos(2 * np.pi * resonances[:, None] * time + phase)
    burst = rng.standard_normal(len(time)) * np.exp(-time / 0.002)
    return (strength * np.exp(-time / decay) * ringing).sum(0) + burst


def music(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """A small band: chords and a bass in four-chord progressions, a melody, and percussion."""
    beat = 60 / rng.uniform(75, 135)  # seconds
    tonic = 220 * 2 ** (rng.integers(-5, 7) / 12)
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.6 else [0, 2, 3, 5, 7, 8, 10])
    roots = rng.permutation([0, 3, 4, 5])
    brightness = rng.uniform(0.6, 1.6)
    attack = rng.choice([0.005, 0.02, 0.08])
    # The recording begins somewhere in the first bar; nothing sounds for longer than two bars.
    skipped = int(rng.uniform(0, 4) * beat * rate)
    total = np.zeros(skipped + samples + int(8 * beat * rate))

    def play(moment: float, sound: Signal) -> None:
        start = int(moment * rate)
        total[start : start + len(sound)] += sound

    def pitch(degree: int) -> float:
        octave, step = divmod(degree, 7)
        return float(tonic * 2 ** (octave + scale[step] / 12))

    drums = rng.uniform(0.2, 0.6)
    for count in range(int((skipped + samples) / rate / beat) + 1):
        moment = count * beat
        root = int(roots[count // 4 % 4])
        if count % 4 == 0:
            for degree in (root, root + 2, root + 4):
                play(moment, 0.5 * _note(rng, rate, pitch(degree), 4 * beat, attack, brightness))
        play(moment, 0.8 * _note(rng, rate, pitch(root) / 4, beat, 0.01, brightness + 0.4))
        for half in (0.0, 0.5):
            if rng.random() < 0.7:
                degree = root + 7 + int(rng.choice([0, 1, 2, 4]))
                length = beat * rng.choice([0.5, 1.0])
                tune = _note(rng, rate, pitch(degree), length, 0.01, brightness)
                play(moment + half * beat, 0.6 * tune)
            play(moment + half * beat, drums * 0.6 * _drum(rng, rate, 5000, 0.02, 0.0))
        if count % 2:
            play(moment, drums * 1.5 * _drum(rng, rate, 1200, 0.06, 190.0))
        else:
            play(moment, drums * 3.0 * _drum(rng, rate, 80, 0.09, 55.0))
    total = reverberate(rng, total, rate, decay=rng.uniform(0.3, 1.0), level=-6.0)
    return in_ambience(rng, total[skipped : skipped + samples], rate, -3, 8)


def _note(
    rng: np.random.Generator, rate: int, pitch: float, length: float, attack: float, slope: float
) -> Signal:
    """Harmonics of `pitch` Hz falling with order^-slope, struck and left to decay."""
    time = np.arange(int(1.2 * length * rate)) / rate
    vibrato = 0.003 * np.sin(2 * np.pi * 5.5 * time) * np.minimum(time / 0.4, 1)
    cycles = pitch * np.cumsum(1 + vibrato) / rate * 2 ** (rng.normal(0, 4) / 1200)
    strength = np.arange(1.0, max(2, min(12, int(0.45 * rate / pitch))) + 1) ** -slope
    fading = time / (0.6 * length)
    # High harmonics die first, as on a string.
    tone = harmonics(rng, cycles, strength, 0.3 * fading) * np.exp(-fading)
    release = np.clip((1.2 * length - time) / (0.2 * length), 0, 1)
    return tone * np.minimum(time / attack, 1) * release


def _drum(rng: np.random.Generator, rate: int, corner: float, decay: float, pitch: float) -> Signal:
    """A stroke: noise above `corner` Hz, and (unless `pitch` is 0) a tone falling to `pitch` Hz."""
    time = np.arange(int(6 * decay * rate)) / rate
    noise = shaped(rng, len(time), rate, lambda f: f**2 / (f**2 + corner**2))
    sweep = pitch * (time + 0.06 * (1 - np.exp(-time / 0.03)))
    share = 0.15 if 0 < pitch < 100 else 1.0
    return (share * noise + (pitch > 0) * np.sin(2 * np.pi * sweep)) * np.exp(-time / decay)


def coloured(rng: np.random.Generator, samples: int, rate: int = 16000) -> Signal:
    """Steady noise: white, pink, brown, or of a random slope with random bands raised by 12 dB."""
    slope = rng.choice([0.0, 0.5, 1.0, rng.uniform(-0.2, 1.0)])
    centres = rng.uniform(np.log(100), np.log(7000), rng.integers(0, 3))
    widths = rng.uniform(0.15, 0.6, len(centres))

    def gain(f: Signal) -> Signal:
        bands = np.exp(-0.5 * ((np.log(f)[:, None] - centres) / widths) ** 2).sum(1)
        return (f / 1000) ** -slope * (1 + 3 * bands)

    return shaped(rng, samples, rate, gain)


# Every class that needs no speech.
NOISES: dict[str, Callable[[np.random.Generator, int, int], Signal]] = {
    function.__name__: function for function in (traffic, hum, wind, keyboard, music, coloured)
}
