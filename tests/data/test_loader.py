"""Batches: their order, each process' part of them, workers; decoded copies."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put, same, sound
from torch.utils.data import Dataset

from bsbimamba.data import samples
from bsbimamba.data.audio import read
from bsbimamba.data.corpus import load_recordings
from bsbimamba.data.dataset import Loader, MixDataset, epoch_order
from bsbimamba.data.samples import Samples
from bsbimamba.utils import DataError

CROP = 4000


# Order


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 5))
def test_epoch_order_permutes(size: int, batch_size: int, epoch: int) -> None:
    batches = epoch_order(size, batch_size, 2, epoch)
    assert len(batches) == size // batch_size
    assert {len(batch) for batch in batches} <= {batch_size}
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys)
    assert all(e == epoch and 0 <= index < size for e, index in keys)
    if size > 20:
        for seed, another in ((3, epoch), (2, epoch + 1)):
            other = epoch_order(size, batch_size, seed, another)
            assert [i for batch in other for _, i in batch] != [i for _, i in keys]


# Workers


@pytest.mark.usefixtures("own_index")
def test_loader_gives_the_same_batches_with_workers(tmp_path: Path) -> None:
    """Two epochs, of which the first is entered in its middle."""
    for n in range(20):
        put(tmp_path / ("clean" if n else "noise") / f"{n}.wav", seed=n)
    sides = (load_recordings(tmp_path / side) for side in ("clean", "noise"))
    dataset = MixDataset(*sides, 3, (-5, 20), CROP, babble=0.3, speech_shaped=0.3)
    alone, loader = (Loader(dataset, 2, 5, slice(None), n, pin=False) for n in (0, 2))
    expected, found = ([*x.batches(1, 3), *x.batches(2, 0)] for x in (alone, loader))
    assert len(expected) == len(found) == 15
    assert all(same(*both) for both in zip(expected, found, strict=True))
    assert expected[0]["clean"].shape == (2, CROP)
    # A process' part of every batch.
    batch = next(Loader(dataset, 2, 5, slice(1, 2), 0, pin=False).batches(1, 3))
    one = dataset[epoch_order(19, 2, 5, 1)[3][1]]
    assert same(one, {"name": batch["name"][0], **{k: batch[k][0] for k in ("clean", "noisy")}})
    assert torch.equal(batch["clean"], expected[0]["clean"][1:])


class Faulty(Dataset):
    """Has no example that can be read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        raise DataError("a bug")


def test_loader_raises_what_a_worker_fails_with() -> None:
    loader = Loader(Faulty(), 1, 0, slice(None), 1, pin=False)
    with pytest.raises(DataError, match=r"^a bug$"):
        list(loader.batches(0, 0))


# Decoded copies


def decoded(*paths: Path) -> Samples:
    source = Samples()
    source.keep_decoded(paths)
    return pickle.loads(pickle.dumps(source))  # as worker processes get it


def copies() -> list[Path]:
    return sorted(samples.CACHE.rglob("*.npy"))


@pytest.mark.usefixtures("own_index")
def test_copies_hold_the_samples_of_slow_files(tmp_path: Path) -> None:
    paths = [put(tmp_path / "a.opus", 1.0), tmp_path / "b.ogg", tmp_path / "c.flac"]
    sf.write(paths[1], sound(1.0), 16000)
    sf.write(paths[2], np.stack([sound(1.0, 8000)] * 2, axis=1), 8000)
    fast, loud = put(tmp_path / "d.wav"), tmp_path / "loud.wav"
    sf.write(loud, 3 * sound(1.0, 44100), 44100, "FLOAT")
    source = decoded(*paths, fast, loud)
    assert len(copies()) == 4
    for path, error in (*((path, 0.5 / 32768) for path in paths), (loud, 0)):
        found = source.piece(path, 16000, 0, 16000)
        assert found.dtype == np.float32
        assert np.abs(found - read(path)).max() <= error
        np.testing.assert_array_equal(source.piece(path, 16000, 5000, 700), found[5000:5700])
        np.testing.assert_array_equal(source.piece(path, 16000, 15_990, 20)[10:], np.zeros(10))
    np.testing.assert_array_equal(source.piece(fast, 8000, 100, 50), read(fast, 100, 50))


@pytest.mark.usefixtures("own_index")
def test_copies_are_made_once_and_anew_where_files_change(tmp_path: Path) -> None:
    path, other = put(tmp_path / "a.opus"), put(tmp_path / "b.opus")
    first = decoded(path, other)
    made = {copy: copy.stat().st_mtime_ns for copy in copies()}
    decoded(path)
    assert {copy: copy.stat().st_mtime_ns for copy in copies()} == made
    put(path, 0.7)
    assert decoded(path).piece(path, 11_200, 0, 11_200)[-1] != 0
    assert first.piece(path, 8000, 0, 8000).any()  # another run may still read its copy
    shutil.rmtree(samples.CACHE)
    samples.CACHE.touch()
    with pytest.raises(DataError, match=r"cannot be written .*--run.no-packed"):
        decoded(path)
