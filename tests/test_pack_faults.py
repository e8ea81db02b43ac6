"""Packs that are damaged, gone or of other files, and disks without room."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import put, put_odd_pairs, put_pairs

from data import packed
from data.audio import read
from data.corpus import load_pairs
from data.dataset import PairDataset
from data.errors import DataError
from data.manifest import make
from data.pack import main, pack
from data.packed import FOLDER, Pack, find_packs
from data.samples import Samples

RATE = 16000


pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return put_odd_pairs(tmp_path / "corpus")


def test_a_file_that_has_changed_since_is_read_by_itself(
    corpus: Path, caplog: pytest.LogCaptureFixture
):
    pack(corpus)
    changed = corpus / "clean" / "a_1.wav"
    put(changed, 0.6, seed=99)
    (one,) = find_packs(corpus)
    assert changed not in one
    assert corpus / "noisy" / "a_1.wav" in one
    assert f"1 files have changed since they were packed, {changed} among them" in caplog.text
    assert np.array_equal(Samples([one]).read(changed), read(changed))


def test_a_pack_whose_files_were_written_again_is_made_anew(corpus: Path):
    (old,) = pack(corpus)
    again = corpus / "clean" / "a_1.wav"
    os.utime(again, (1, 1))
    assert [each.changed for each in find_packs(corpus)] == [[again]]
    (new,) = pack(corpus)
    assert again in new
    assert len(new) == len(old)


def test_a_file_that_is_not_the_manifests_is_not_packed(
    corpus: Path, capsys: pytest.CaptureFixture
):
    make(corpus)
    changed = put(corpus / "clean" / "a_1.wav", 0.6, seed=99)
    assert main([str(corpus)]) == 2
    assert f"{changed} is not the file that the manifest has" in capsys.readouterr().err
    assert list((corpus / FOLDER).iterdir()) == []


def test_a_file_that_is_missing(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    (corpus / "noisy" / "b_1.flac").unlink()
    assert main([str(corpus)]) == 2
    assert "b_1.flac: No such file or directory" in capsys.readouterr().err
    assert list((corpus / FOLDER).iterdir()) == []


# Damage


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def _move(path: Path) -> None:
    """Other samples than those of the recording, each where there are some."""
    table = path.with_suffix(".json")
    content = json.loads(table.read_text())
    one, other = list(content["files"])[:2]
    content["files"][one], content["files"][other] = content["files"][other], content["files"][one]
    table.write_text(json.dumps(content))


def _edit(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = path.with_suffix(".json")
        table.write_text(json.dumps(json.loads(table.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        Path.unlink,
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
        _move,
        _edit(version=0),
        _edit(bytes=float("inf")),
        _edit(files=[1]),
        _edit(files={"a": [1, 2]}),
    ],
)
def test_a_damaged_pack_is_left_out_and_made_again(
    corpus: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
):
    (one,) = pack(corpus)
    damage(one.path)
    assert find_packs(corpus) == []
    assert "is damaged" in caplog.text
    assert f"python -m data.pack {corpus} makes it anew; its files are read instead" in caplog.text
    (new,) = pack(corpus)
    new.check()


def test_a_pack_that_goes_meanwhile_is_done_without(corpus: Path, caplog: pytest.LogCaptureFixture):
    """As when a corpus is packed anew while it is trained on."""
    (one,) = pack(corpus)
    pairs, source = load_pairs(corpus, "train"), Samples(find_packs(corpus))
    one.path.unlink()
    dataset, plain = PairDataset(pairs, 0, 1000, samples=source), PairDataset(pairs, 0, 1000)
    for key in ((0, 0), (0, 1)):
        assert torch.equal(dataset[key]["noisy"], plain[key]["noisy"])
    assert caplog.messages == [f"{one.path}: No such file or directory; its files are read instead"]


def test_one_flipped_bit_is_found_by_a_check(corpus: Path, capsys: pytest.CaptureFixture):
    (one,) = pack(corpus)
    content = bytearray(one.path.read_bytes())
    content[1000] ^= 1
    one.path.write_bytes(content)
    assert main([str(corpus), "--check"]) == 2
    assert f"{one.path} is damaged: remove it, and pack again" in capsys.readouterr().err


def test_too_little_room(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 9))
    assert main([str(corpus)]) == 1
    assert "packed: a pack takes 0 MB at least, 0 MB are free. Make room" in capsys.readouterr().err


def test_a_write_that_fails_leaves_nothing(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data.pack.Writer.add", full)
    assert main([str(corpus)]) == 1
    assert "packed cannot be written (No space left on device)" in capsys.readouterr().err
    assert list((corpus / FOLDER).iterdir()) == []


def test_an_interruption_leaves_nothing(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.pack.Writer.add", stop)
    assert main([str(corpus)]) == 130
    assert list((corpus / FOLDER).iterdir()) == []
    assert capsys.readouterr().err.endswith("pack: interrupted\n")


def test_nothing_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    put_pairs(tmp_path, ["p232_1.wav"])
    assert main([str(tmp_path)]) == 2
    assert "has nothing to train on: tests are not packed" in capsys.readouterr().err


def test_a_corpus_without_anything(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_pack_keeps_its_word_about_versions(corpus: Path, monkeypatch: pytest.MonkeyPatch):
    (one,) = pack(corpus)
    monkeypatch.setattr(packed, "VERSION", 2)
    with pytest.raises(DataError, match=r"of another version|is damaged"):
        Pack(one.path.with_suffix(".json"), corpus)
