"""A small corpus after VoiceBank-DEMAND's kind, for the tests of `data.verify`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import sound

from data.audio import SAMPLE_RATE
from data.verify import main

TRAIN = ["p226_001", "p227_002", "p228_003"]
TEST = ["p232_001", "p257_002"]


def put(
    root: Path, side: str, split: str, name: str, x: np.ndarray, rate: int = SAMPLE_RATE
) -> Path:
    """A recording in the published folder of its side and split."""
    path = root / f"{side}_{split}_wav" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x, rate)
    return path


def small_corpus(root: Path) -> Path:
    """Three training pairs and two test pairs, all as they should be."""
    for split, names in (("trainset_28spk", TRAIN), ("testset", TEST)):
        for name in names:
            seed = int(name[1:4])
            clean = sound(0.6, seed=seed)
            clean[3000:5000] *= 0.01  # a pause that is not quite silent, as speech has some
            put(root, "clean", split, name, clean)
            put(root, "noisy", split, name, 0.7 * clean + 0.2 * sound(0.6, seed=seed + 1000))
    return root


def shift(path: Path) -> None:
    """Let a recording come 37 samples later."""
    x, _ = sf.read(path)
    sf.write(path, np.concatenate([np.zeros(37), x])[: len(x)], SAMPLE_RATE)


def twice(root: Path) -> None:
    """Let the test archives have been extracted into themselves."""
    for side in ("clean", "noisy"):
        folder = root / f"{side}_testset_wav"
        shutil.copytree(folder, folder / folder.name)


def run(root: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[int, str]:
    """The command's status and what it prints."""
    status = main([str(root), "--workers", "1", "--no-scores", *options])
    return status, capsys.readouterr().out
