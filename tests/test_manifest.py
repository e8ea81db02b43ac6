"""Manifests: what they say of a corpus, and that whatever loads the corpus goes by them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from recordings import put, put_pairs

from data import index
from data.corpus import load_pairs
from data.entry import Entry, path_of, read_entries
from data.errors import DataError
from data.listing import folder_splits, has_split, list_pairs, splits_in
from data.manifest import main, make, make_recordings
from data.pack import main as pack

SHA = "0" * 64


pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A small VoiceBank-DEMAND as its publisher lays it out, logs included."""
    root = tmp_path / "corpus"
    for number, (split, name) in enumerate(
        [
            ("trainset_28spk", "p226_001"),
            ("trainset_28spk", "p287_002"),
            ("trainset_28spk", "p227_003"),
            ("trainset_28spk", "p228_004"),
            ("testset", "p232_005"),
        ]
    ):
        for side in ("clean", "noisy"):
            put(root / f"{side}_{split}_wav" / f"{name}.wav", 0.5 + number / 16, number)
    (root / "logfiles").mkdir()
    (root / "logfiles" / "log_trainset_28spk.txt").write_text(
        "p226_001 babble 10\np227_003 ssn 0\n"
    )
    (root / "logfiles" / "log_testset.txt").write_text("p232_005 bus 17.5\n")
    return root


def test_what_a_manifest_says(published: Path):
    assert make(published) == {"train": 2, "valid": 2, "test": 1}
    (entry,) = read_entries(path_of(published, "test"))
    files = {side: f"{side}_testset_wav/p232_005.wav" for side in ("clean", "noisy")}
    digests = {
        side: hashlib.sha256((published / file).read_bytes()).hexdigest()
        for side, file in files.items()
    }
    assert entry == Entry("p232_005", files, digests, "p232", 0.75, 17.5, "bus")
    valid, train = (read_entries(path_of(published, split)) for split in ("valid", "train"))
    assert [(e.name, e.snr_db, e.noise) for e in valid] == [
        ("p226_001", 10.0, "babble"),
        ("p287_002", None, None),
    ]
    assert [(e.name, e.snr_db, e.noise) for e in train] == [
        ("p227_003", 0.0, "ssn"),
        ("p228_004", None, None),
    ]


def test_loading_goes_by_the_manifests(published: Path, caplog: pytest.LogCaptureFixture):
    before = load_pairs(published, "train")
    make(published)
    train, valid = (load_pairs(published, split) for split in ("train", "valid"))
    assert sorted(train + valid, key=lambda pair: pair.name) == before
    assert {pair.speaker for pair in valid} == {"p226", "p287"}
    assert not caplog.records


def test_speakers_to_hold_out_may_be_others(published: Path, capsys: pytest.CaptureFixture):
    assert main([str(published), "--valid", "p228"]) == 0
    assert capsys.readouterr().out == f"{published}: 3 train, 1 test, 1 valid pairs\n"
    assert [e.speaker for e in read_entries(path_of(published, "valid"))] == ["p228"]
    assert main([str(published), "--valid", "p228", "p999"]) == 2
    message = f"{published}: --valid p228 p999: its training pairs lack p999"
    assert capsys.readouterr().err == f"manifest: {message}\n"
    assert main([str(published), "--valid", "p226", "p227", "p228", "p287"]) == 2
    assert "lack others, which remain to train on" in capsys.readouterr().err


def test_without_the_usual_speakers_none_is_held_out(published: Path):
    make(published)
    for side in ("clean", "noisy"):
        (published / f"{side}_trainset_28spk_wav" / "p226_001.wav").unlink()
    assert make(published) == {"train": 3, "test": 1}
    assert not path_of(published, "valid").exists()


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_one_side_alone_is_not_taken_for_recordings(
    published: Path, side: str, capsys: pytest.CaptureFixture
):
    folder = published / f"{side}_trainset_28spk_wav"
    folder.rename(published / "renamed")
    other = "noisy" if side == "clean" else "clean"
    for command in (main, pack):
        assert command([str(published)]) == 2
        said = capsys.readouterr().err
        assert f"{published / other}_trainset_28spk_wav: there is no folder of its other" in said


def test_a_manifest_that_is_lost_is_asked_for(published: Path):
    make(published)
    path_of(published, "train").unlink()
    with pytest.raises(DataError, match=r"train.jsonl is missing beside valid.jsonl"):
        load_pairs(published, "train")


def test_manifests_of_another_kind_go(tmp_path: Path):
    put(tmp_path / "a.wav")
    make_recordings(tmp_path)
    (tmp_path / "a.wav").unlink()
    put_pairs(tmp_path, ["s_1.wav"])
    make(tmp_path)
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_manifests_that_are_no_files(published: Path, kind: str):
    make(published)
    path = path_of(published, "train")
    path.unlink()
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(DataError, match=r"train.jsonl is not a file. Remove it"):
        load_pairs(published, "train")


def test_a_changed_length_is_noticed(published: Path):
    make(published)
    for side in ("clean", "noisy"):
        put(published / f"{side}_trainset_28spk_wav" / "p227_003.wav", 0.6)
    with pytest.raises(DataError, match=r"p227_003.wav: is another file than the corpus' manifest"):
        load_pairs(published, "train")


def test_a_missing_file_is_noticed(published: Path):
    make(published)
    (published / "noisy_trainset_28spk_wav" / "p227_003.wav").unlink()
    with pytest.raises(DataError, match=r"p227_003.wav: cannot be opened \(No such file"):
        load_pairs(published, "train")


def test_new_files_are_left_out_and_named(published: Path, caplog: pytest.LogCaptureFixture):
    make(published)
    for side in ("clean", "noisy"):
        put(published / f"{side}_trainset_28spk_wav" / "p230_001.wav")
    assert len(load_pairs(published, "train")) == 2
    assert "1 files are in no manifest and left out, p230_001.wav among them" in caplog.text
    caplog.clear()
    make(published)
    assert len(load_pairs(published, "train")) == 3
    assert not caplog.records


def test_clean_and_noisy_alone_are_one_split(tmp_path: Path):
    put_pairs(tmp_path, ["p226_001.wav", "p227_001.wav", "p287_001.wav"])
    assert folder_splits(tmp_path) == ("train",)
    assert make(tmp_path) == {"train": 1, "valid": 2}
    assert splits_in(tmp_path) == ("train",)
    with pytest.raises(DataError, match=r"no test pairs. What is there is for train, says .*train"):
        list_pairs(tmp_path, "test")
    assert not has_split(tmp_path, "test")
    assert make(tmp_path) == {"train": 1, "valid": 2}  # from the folders, not from themselves


def test_clean_and_noisy_of_test_speakers_are_the_test(tmp_path: Path):
    put_pairs(tmp_path, ["p232_001.wav", "p257_001.wav"])
    assert folder_splits(tmp_path) == ("test",)
    assert make(tmp_path) == {"test": 2}


def test_folders_of_three_splits_have_three_manifests(tiny_corpus: Path):
    entries = read_entries(path_of(tiny_corpus, "test"))
    assert [e.files["noisy"] for e in entries] == [f"test/noisy/{e.name}.wav" for e in entries]
    assert splits_in(tiny_corpus) == ("train", "valid", "test")


def test_single_recordings(tmp_path: Path):
    put(tmp_path / "street" / "a b.wav", 0.5)
    assert make_recordings(tmp_path) == 1
    (entry,) = read_entries(path_of(tmp_path, "recordings"))
    assert entry.files == {"audio": "street/a b.wav"}
    assert entry.seconds == 0.5


def test_bad_files_are_named_and_nothing_is_written(published: Path):
    (published / "noisy_testset_wav" / "p232_005.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"p232_005.wav: cannot be decoded"):
        make(published)
    assert not (published / "manifests").exists()


def test_where_nothing_can_be_written(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(index, "_write", lambda files: None)
    assert main([str(published)]) == 1
    message = capsys.readouterr().err
    assert "manifests/train.jsonl cannot be written (Read-only file system)" in message
