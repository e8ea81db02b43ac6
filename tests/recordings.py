"""Recordings made for the tests of the data layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.audio import SAMPLE_RATE, write


def sound(seconds: float, rate: int = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    """Noise whose level varies as that of speech does, within full scale; (s,)."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate)
    loudness = rng.uniform(0.02, 0.25, 2 + int(8 * seconds))
    level = np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, len(loudness)), loudness)
    return (level * rng.standard_normal(samples)).clip(-0.9, 0.9)


def put(path: Path, seconds: float = 0.5, seed: int = 0) -> Path:
    """A file with such a sound, and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, sound(seconds, seed=seed))
    return path


def put_pairs(root: Path, names: list[str], seconds: float = 0.5) -> None:
    """For each name (a path with its extension) a file in root/clean and one in root/noisy."""
    for seed, name in enumerate(names):
        put(root / "clean" / name, seconds, seed)
        put(root / "noisy" / name, seconds, seed + 1000)
