"""Packed corpora: the same samples as from the files, and never those of other files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from recordings import put, put_odd_pairs, put_pairs, sound

from data import pack as packing
from data.audio import read
from data.corpus import load_pairs
from data.dataset import PairDataset
from data.errors import DataError
from data.manifest import make
from data.pack import Writer, main, pack
from data.packed import FOLDER, find_packs
from data.samples import Samples

RATE = 16000


pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return put_odd_pairs(tmp_path / "corpus")


def test_the_same_samples_as_from_the_files(corpus: Path):
    (one,) = pack(corpus)
    pairs = load_pairs(corpus, "train")
    assert len(one) == 2 * len(pairs) == 12
    for path in (path for pair in pairs for path in (pair.clean, pair.noisy)):
        whole = read(path)
        assert path in one
        x = one.read(path)
        assert x.dtype == np.float32
        assert np.array_equal(x, whole)
        for start, frames in ((0, 7), (100, 333), (9000, 5000), (10**6, 5), (5, 0)):
            assert np.array_equal(one.read(path, start, frames), whole[start : start + frames])


def test_two_bytes_a_sample_where_that_is_enough(tmp_path: Path):
    put_pairs(tmp_path, ["a_1.wav"], 0.5)
    sf.write(tmp_path / "clean" / "b_1.wav", sound(0.5), RATE, "FLOAT")
    put(tmp_path / "noisy" / "b_1.wav", 0.5)
    (one,) = pack(tmp_path)
    assert one.path.stat().st_size == 8000 * (2 + 2 + 4 + 2)


def test_full_scale_is_not_wrapped(tmp_path: Path):
    """In floats, 1.0 is one step above what 16 bits hold."""
    x = np.array([1.0, -1.0, 0.5, 0.0] * 1000)
    sf.write(tmp_path / "a.wav", x, RATE, "FLOAT")
    (one,) = pack(tmp_path)
    assert np.array_equal(one.read(tmp_path / "a.wav"), x)


def test_rounded_packs_hold_16_bits_of_whatever_there_is(tmp_path: Path):
    """Half a step off at most, and clipped; one that is not rounded takes its place, and back."""
    x = np.random.default_rng(0).uniform(-1.2, 1.2, 4000).astype(np.float32)
    path = tmp_path / "a.wav"
    sf.write(path, x, RATE, "FLOAT")
    (one,) = pack(tmp_path, rounded=True)
    assert one.rounded
    assert one.path.stat().st_size == 2 * len(x)
    found = one.read(path)
    inside = np.abs(x) < 1 - 1 / 32768
    assert np.abs(found - x)[inside].max() <= 0.5 / 32768 + 1e-9
    assert found.max() == np.float32(32767 / 32768)
    assert found.min() == -1
    written = one.path.stat().st_mtime_ns
    (again,) = pack(tmp_path, rounded=True)
    assert again.path.stat().st_mtime_ns == written
    (exact,) = pack(tmp_path)
    assert not exact.rounded
    assert np.array_equal(exact.read(path), x)
    assert main([str(tmp_path), "--int16", "--check"]) == 0
    (last,) = find_packs(tmp_path)
    assert np.array_equal(last.read(path), found)


def test_so_much_is_in_memory_at_once_and_not_more(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("data.pack._TOGETHER", 1.3)  # s; each file has 0.6 or so
    waiting, most = [0], [0]
    inner_read, inner_add = packing._checked, Writer.add

    def checked(*arguments: object) -> object:
        found = inner_read(*arguments)  # type: ignore[arg-type]
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return found

    def add(self: Writer, *arguments: object) -> None:
        waiting[0] -= 1
        inner_add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("data.pack._checked", checked)
    monkeypatch.setattr(Writer, "add", add)
    pack(corpus)
    assert most[0] <= 2
    names = {
        name: ("", seconds) for name, seconds in zip("abcde", (0.6, 0.6, 9, 0.1, 0.2), strict=True)
    }
    assert list(packing._together(names)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(packing._together({})) == []


def test_room_for_two_bytes_a_sample_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_pairs(tmp_path, ["a_1.wav"], 1.0)
    for free, enough in ((2 * 32_000 - 1, False), (2 * 32_000, True)):
        usage = shutil._ntuple_diskusage(10**6, 10**6, free)  # type: ignore[attr-defined]
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        assert (main([str(tmp_path)]) == 0) == enough


def test_a_file_that_ends_earlier_than_it_did_is_noticed(tmp_path: Path):
    put_pairs(tmp_path, ["a_1.wav"], 1.0)
    (pair,) = load_pairs(tmp_path, "train")
    dataset = PairDataset([pair], 0, 16000)
    put(pair.noisy, 0.9)
    with pytest.raises(DataError, match=r"a_1.wav: it is shorter than it was"):
        dataset[0, 0]


def test_training_examples_are_the_same(corpus: Path):
    pack(corpus)
    pairs = load_pairs(corpus, "train")
    source = Samples(find_packs(corpus))
    # Of other rates than 16 kHz, a file's piece is resampled by itself, but for rounding the same.
    same = [pair for pair in pairs if not pair.name.startswith(("c", "e"))]
    for frames in (3000, 16000, None):
        plain, fast = PairDataset(same, 1, frames), PairDataset(same, 1, frames, samples=source)
        for key in ((0, 0), (1, 1), (2, 2)):
            for side in ("clean", "noisy"):
                assert torch.equal(plain[key][side], fast[key][side])


def test_packed_files_are_not_decoded(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    pack(corpus)
    pairs, source = load_pairs(corpus, "train"), Samples(find_packs(corpus))

    def refuse(*_: object) -> None:
        raise AssertionError("a file was decoded")

    monkeypatch.setattr("data.samples.read", refuse)
    dataset = PairDataset(pairs, 0, 1000, samples=source)
    assert [len(dataset[0, i]["clean"]) for i in range(len(dataset))] == [1000] * 6


def test_a_pack_is_mapped_by_each_process_for_itself(corpus: Path):
    (one,) = pack(corpus)
    path = load_pairs(corpus, "train")[0].clean
    expected = one.read(path)
    assert len(pickle.dumps(one)) < one.path.stat().st_size / 10
    assert np.array_equal(pickle.loads(pickle.dumps(one)).read(path), expected)


def test_what_is_packed_stays(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    (one,) = pack(corpus)
    monkeypatch.setattr("data.pack.read", lambda path: pytest.fail("packed again"))
    (again,) = pack(corpus)
    assert again.path == one.path
    again.check()


def test_another_manifest_is_another_pack(corpus: Path, caplog: pytest.LogCaptureFixture):
    (old,) = pack(corpus)
    for side in ("clean", "noisy"):
        put(corpus / side / "g_1.wav")
    make(corpus)
    assert find_packs(corpus) == []
    assert "train.jsonl has changed since it was packed: python -m data.pack" in caplog.text
    (new,) = pack(corpus)
    assert len(new) == 14
    assert not old.path.exists()
    assert len(list((corpus / FOLDER).iterdir())) == 2


def test_the_test_split_is_not_packed(tiny_corpus: Path, tmp_path: Path):
    shutil.copytree(tiny_corpus, tmp_path / "copy")
    assert [each.path.name.partition("-")[0] for each in pack(tmp_path / "copy")] == [
        "train",
        "valid",
    ]


def test_single_recordings_are_packed_too(tmp_path: Path, capsys: pytest.CaptureFixture):
    put(tmp_path / "noise" / "street 1.wav", 0.5)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(".pcm: 1 files, 0.0 MB\n")
    (one,) = find_packs(tmp_path)
    assert len(one.read(tmp_path / "noise" / "street 1.wav")) == 8000
