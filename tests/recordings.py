"""Recordings made for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from bsbimamba.data.audio import write
from bsbimamba.data.levels import SAMPLE_RATE

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


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


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two examples, or two batches, are the same bit for bit."""
    sides = ("clean", "noisy")
    return one["name"] == other["name"] and all(torch.equal(one[x], other[x]) for x in sides)


def put_pairs(root: Path, names: list[str], seconds: float = 0.5) -> None:
    """For each name (a path with its extension) a file in root/clean and one in root/noisy."""
    for seed, name in enumerate(names):
        put(root / "clean" / name, seconds, seed)
        put(root / "noisy" / name, seconds, seed + 1000)


def put_corpus(root: Path, train: int = 6, valid: int = 2, test: int = 4) -> Path:
    """Pairs of up to 3 s of real speech in real noise at 5 dB; returns `root`.

    Every pair has a speaker of its own.
    """
    readers = {path.name.split("-")[0]: path for path in (SAMPLE / "clean/librispeech").iterdir()}
    speech = [readers[name] for name in sorted(readers)]
    noises = sorted((SAMPLE / "noise/speech_commands").iterdir())
    splits = ["train"] * train + ["valid"] * valid + ["test"] * test
    for number, (path, split) in enumerate(zip(speech, splits, strict=False)):
        clean = sf.read(path, frames=3 * SAMPLE_RATE)[0] / 2
        noise = sf.read(noises[number % len(noises)], frames=len(clean), start=80_000)[0]
        noisy = clean + noise * np.sqrt(np.mean(clean**2) / np.mean(noise**2) / 10**0.5)
        for side, samples in (("clean", clean), ("noisy", noisy)):
            (root / split / side).mkdir(parents=True, exist_ok=True)
            write(root / split / side / f"{path.stem}.wav", samples)
    return root


def voiced(seed: int, noise: float) -> tuple[Tensor, Tensor]:
    """Two seconds of something that PESQ takes for speech, clean and noisy: (2, s) each."""
    rng = np.random.default_rng(seed)
    t = np.arange(32000) / 16000
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)[None] + rng.uniform(-10, 10, (2, 1))
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / 16000
    clean = sum(np.sin(k * phase) / k for k in range(1, 20))
    clean *= np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1)
    noisy = clean + noise * rng.standard_normal(clean.shape)
    return torch.from_numpy(clean).float(), torch.from_numpy(noisy).float()
