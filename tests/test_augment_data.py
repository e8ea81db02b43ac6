"""Augmented examples of data sets: decided by their keys, and as without where nothing is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import put

from data.augment import Augment
from data.corpus import Pair, Recording, load_pairs
from data.dataset import MixDataset, PairDataset, SpeechDataset

RATE = 16000
FRAMES = RATE
SLOTS = ("speed", "room", "babble", "remix", "band", "gain")


@pytest.fixture(scope="module")
def pairs(tiny_corpus: Path) -> list[Pair]:
    return load_pairs(tiny_corpus, "train")


@pytest.fixture(params=["pairs", "mix"])
def dataset(request: pytest.FixtureRequest, pairs: list[Pair], tmp_path: Path) -> SpeechDataset:
    everything = Augment(**dict.fromkeys(SLOTS, 0.5))  # type: ignore[arg-type]
    if request.param == "pairs":
        return PairDataset(pairs, 3, 8000, augment=everything)
    from data.audio import inspect

    clean = [Recording(p.name, p.clean, p.speaker, inspect(p.clean)) for p in pairs]
    noise = [Recording(n, x, n, inspect(x)) for n in "ab" if (x := put(tmp_path / f"{n}.wav", 1.0))]
    return MixDataset(clean, noise, 3, (0, 10), 8000, augment=everything)


def test_an_example_is_decided_by_its_key_alone(dataset: SpeechDataset):
    keys = [(epoch, index) for epoch in range(2) for index in range(len(dataset))]
    first = {key: dataset[key] for key in keys}
    for key in reversed(keys):
        again = dataset[key]
        assert all(torch.equal(first[key][side], again[side]) for side in ("clean", "noisy"))
        assert all(len(again[side]) == 8000 for side in ("clean", "noisy"))
    assert not torch.equal(first[0, 1]["noisy"], first[1, 1]["noisy"])


def test_examples_of_an_epoch_are_treated_each_in_its_way(dataset: SpeechDataset):
    dataset.augment = Augment(gain=1.0)
    plain = type(dataset).__new__(type(dataset))
    plain.__dict__ |= {**dataset.__dict__, "augment": None}
    gains = {
        round(float(dataset[0, i]["clean"].abs().max() / plain[0, i]["clean"].abs().max()), 4)
        for i in range(len(dataset))
    }
    assert len(gains) == len(dataset)


def test_what_no_slot_touches_is_bit_for_bit_as_without(dataset: SpeechDataset):
    plain = type(dataset).__new__(type(dataset))
    plain.__dict__ |= {**dataset.__dict__, "augment": None}
    rare = type(dataset).__new__(type(dataset))
    rare.__dict__ |= {**dataset.__dict__, "augment": Augment(gain=0.2)}
    same = [
        torch.equal(plain[epoch, i]["noisy"], rare[epoch, i]["noisy"])
        for epoch in range(6)
        for i in range(len(dataset))
    ]
    assert 0.5 < np.mean(same) < 1


def test_validation_is_never_augmented(pairs: list[Pair]):
    plain = PairDataset(pairs, 0, None, 8000)
    other = PairDataset(pairs, 0, None, 8000, augment=Augment(gain=1.0))
    assert torch.equal(plain[0, 0]["noisy"], other[0, 0]["noisy"])


def test_babble_is_by_others(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch):
    dataset = PairDataset(pairs, 0, 8000, augment=Augment(babble=1.0))
    read = []
    inner = dataset.samples.read
    monkeypatch.setattr(
        dataset.samples, "read", lambda path, *place: read.append(path) or inner(path, *place)
    )
    for index, pair in enumerate(pairs):
        read.clear()
        dataset._talk(index, np.random.default_rng(index))
        (path,) = read
        assert path.parent.name == "clean"
        assert path.stem.partition("_")[0] != pair.speaker
    alone = PairDataset([replace(pair, speaker="x") for pair in pairs], 0, 8000)
    assert len(alone._talk(0, np.random.default_rng(0))) == 0
