"""Batches: their order, each process' part of them, and workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put
from torch.utils.data import Dataset

from data.audio import inspect
from data.corpus import Pair, Recording
from data.dataset import MixDataset, PairDataset, SpeechDataset
from data.loader import EpochSampler, Loader
from data.utils import DataError
from training.distributed import World

CROP = 4000


def recordings(folder: Path, count: int) -> list[Recording]:
    paths = [put(folder / f"{i}.wav", 0.5, seed=i) for i in range(count)]
    return [Recording(path.stem, path, path.stem, inspect(path)) for path in paths]


@pytest.fixture(params=["pairs", "mix"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> SpeechDataset:
    clean, noise = recordings(tmp_path / "clean", 7), recordings(tmp_path / "noise", 3)
    if request.param == "mix":
        return MixDataset(clean, noise, 3, (-5, 20), CROP, babble=0.3, speech_shaped=0.3)
    pairs = [Pair(r.name, r.path, r.path, "p1", r.info.frames) for r in clean]
    return PairDataset(pairs, 3, CROP)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["name"] == b["name"] and all(torch.equal(a[k], b[k]) for k in ("clean", "noisy"))


def test_workers_live_from_epoch_to_epoch_and_memory_is_pinned_if_wanted(
    dataset: SpeechDataset, monkeypatch: pytest.MonkeyPatch
):
    made: list[dict[str, Any]] = []

    class Noted(torch.utils.data.DataLoader):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(options)
            super().__init__(*arguments, **options | {"pin_memory": False})

    monkeypatch.setattr("data.loader.DataLoader", Noted)
    for pin in (False, True):
        loader = Loader(dataset, EpochSampler(len(dataset), 2, 0), 1, pin)
        assert made.pop()["pin_memory"] == pin
    assert all(len(list(loader.batches(epoch, 0))) == 3 for epoch in range(2))
    children = {child.pid for child in multiprocessing.active_children()}
    assert len(list(loader.batches(2, 0))) == 3
    assert children
    assert {child.pid for child in multiprocessing.active_children()} == children


def test_both_sides_of_a_batch_are_those_of_its_examples(dataset: SpeechDataset):
    (first, *_) = Loader(dataset, EpochSampler(len(dataset), 3, 0), 0, False).batches(0, 0)
    keys = next(iter(EpochSampler(len(dataset), 3, 0)))
    for place, key in enumerate(keys):
        one = {"name": first["name"][place], **{k: first[k][place] for k in ("clean", "noisy")}}
        assert same(one, dataset[key])


# Order


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 5), st.integers(0, 9))
def test_batches_are_a_permutation_and_start_leaves_out_the_first(
    size: int, batch_size: int, epoch: int, start: int
):
    sampler = EpochSampler(size, batch_size, seed=2)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler) == size // batch_size
    assert {len(batch) for batch in batches} <= {batch_size}
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys)
    assert all(e == epoch and 0 <= index < size for e, index in keys)
    sampler.set_epoch(epoch, start)
    assert list(sampler) == batches[start:]


def test_every_epoch_and_seed_has_its_order():
    orders = set()
    for seed in range(3):
        sampler = EpochSampler(20, 5, seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(key[1] for batch in sampler for key in batch))
    assert len(orders) == 9
    assert {len(set(order)) for order in orders} == {20}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1))
def test_the_shares_of_all_processes_are_the_batch(processes: int, each: int, start: int):
    batch = processes * each
    whole = EpochSampler(80, batch, seed=1)
    parts = [EpochSampler(80, batch, 1, World(r, processes).shard(batch)) for r in range(processes)]
    for sampler in (whole, *parts):
        sampler.set_epoch(2, start)
    joined = [list(chain(*pieces)) for pieces in zip(*parts, strict=True)]
    assert joined == list(whole)
    sizes = [len(piece) for part in parts for piece in part]
    assert set(sizes) == {each}


# Workers


def test_the_number_of_workers_changes_nothing(dataset: SpeechDataset):
    """Three epochs, of which the second is entered in its middle."""
    orders: list[list[dict[str, Any]]] = []
    for workers in (0, 1 if isinstance(dataset, PairDataset) else 2):
        loader = Loader(dataset, EpochSampler(len(dataset), 2, seed=5), workers, pin=False)
        batches = []
        for epoch, start in ((0, 0), (1, 1), (2, 0)):
            batches += list(loader.batches(epoch, start))
        orders.append(batches)
    assert len(orders[0]) == len(orders[1]) == 3 * (len(dataset) // 2) - 1
    assert all(same(*both) for both in zip(*orders, strict=True))
    batch = orders[1][0]
    assert batch["clean"].shape == batch["noisy"].shape == (2, CROP)
    assert batch["clean"].dtype == batch["noisy"].dtype == torch.float32


def kill_workers() -> None:
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)


def test_workers_that_are_killed_cost_nothing(tmp_path: Path):
    clean, noise = recordings(tmp_path / "clean", 30), recordings(tmp_path / "noise", 3)
    dataset = MixDataset(clean, noise, 3, (-5, 20), CROP)
    expected = list(Loader(dataset, EpochSampler(30, 2, 5), 0, pin=False).batches(1, 0))
    loader = Loader(dataset, EpochSampler(30, 2, 5), 2, pin=False)
    found = []
    for number, batch in enumerate(loader.batches(1, 0)):
        found.append(batch)
        if number in (0, 6):
            kill_workers()
    assert len(found) == 15
    assert all(same(*both) for both in zip(expected, found, strict=True))
    kill_workers()  # while they have nothing to do, between two epochs
    assert len(list(loader.batches(2, 13))) == 2


class Deadly(Dataset):
    """Its second example kills whoever makes it."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        if key[1] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"name": str(key[1]), "clean": torch.zeros(3), "noisy": torch.zeros(3)}


@pytest.mark.slow
def test_workers_that_die_again_and_again_are_given_up():
    loader = Loader(Deadly(), EpochSampler(2, 1, 0), 1, pin=False)
    with pytest.raises(DataError, match=r"die again and again \(exit code -9\)"):
        list(loader.batches(0, 0))


class Faulty(Dataset):
    """Its second example meets a bug."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        if key[1] == 1:
            raise self.error("bug")
        return {"name": str(key[1]), "clean": torch.zeros(3), "noisy": torch.zeros(3)}


@pytest.mark.parametrize("error", [RuntimeError, OSError])
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_raises_an_error_of_the_dataset_as_it_is(
    workers: int, error: type[Exception], caplog: pytest.LogCaptureFixture
):
    loader = Loader(Faulty(error), EpochSampler(2, 1, 0), workers, pin=False)
    with pytest.raises(error, match="bug") as raised:
        list(loader.batches(0, 0))
    place = f"line {Faulty.__getitem__.__code__.co_firstlineno + 2}, in __getitem__"
    shown = "".join(traceback.format_exception(raised.value))
    assert f'{Path(__file__).name}", {place}' in shown
    assert "died" not in caplog.text


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_same_message(tmp_path: Path):
    clean, noise = recordings(tmp_path / "clean", 4), recordings(tmp_path / "noise", 1)
    noise[0].path.unlink()
    dataset = MixDataset(clean, noise, 0, (0, 0), CROP)
    loader = Loader(dataset, EpochSampler(len(clean), 2, 0), workers=1, pin=False)
    with pytest.raises(DataError, match=rf"^{noise[0].path}: cannot be opened .* put it back\.$"):
        next(loader.batches(0, 0))
