"""Training and validation sets of made-up material, for the tests of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recordings import put

from data.dataset import MixDataset, PairDataset
from training.config import Config, Data
from training.sources import make_datasets

VOICES = [f"p{speaker}_{number}.wav" for speaker in range(225, 232) for number in (1, 2)]


def pairs(root: Path, **options: Any) -> tuple[PairDataset, PairDataset]:
    train, valid = make_datasets(Config(data=Data(root=str(root), **options)), False)
    assert isinstance(train, PairDataset)
    assert isinstance(valid, PairDataset)
    return train, valid


def mixtures(root: Path, **options: Any) -> tuple[MixDataset, MixDataset]:
    data = Data("mix", clean=str(root / "speech"), noise=str(root / "noise"), **options)
    train, valid = make_datasets(Config(data=data), False)
    assert isinstance(train, MixDataset)
    assert isinstance(valid, MixDataset)
    return train, valid


def put_material(folder: Path) -> Path:
    """Speech and noise to mix, in the folder, which is returned."""
    for seed, name in enumerate(VOICES):
        put(folder / "speech" / name, 0.4, seed)
    for number in range(10):
        put(folder / "noise" / f"{number}.wav", 1, 100 + number)
    return folder
