"""Music, for rooms in which it plays. Signals are (s,) float64."""

from __future__ import annotations

import numpy as np

from data.sound import Signal, harmonics, shaped, unit_rms


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
    return unit_rms(total[skipped : skipped + samples])


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
