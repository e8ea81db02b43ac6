"""Folders of recordings: layouts, pairing, and every way in which a stranger's disk disappoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import put, put_pairs, sound

from data import corpus
from data.corpus import LAYOUTS, find_recordings, load_pairs, load_recordings, pair_folders
from data.utils import DataError

RATE = 16000


pytestmark = pytest.mark.usefixtures("own_index")


# Pairs


@pytest.mark.parametrize(
    ("split", "folders"),
    [(split, folders) for split, known in LAYOUTS.items() for folders in known],
)
def test_every_layout(tmp_path: Path, split: str, folders: tuple[str, str]):
    for side in folders:
        put(tmp_path / side / "p1_001.wav")
    (pair,) = load_pairs(tmp_path, split)
    assert pair == corpus.Pair(
        "p1_001", *(tmp_path / side / "p1_001.wav" for side in folders), "p1", RATE // 2
    )


def test_the_most_specific_layout_is_taken(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "train", tmp_path / "test"):
        put_pairs(folder, ["a.wav"])
    for split in ("train", "test"):
        assert pair_folders(tmp_path, split) == tuple(
            tmp_path / split / side for side in ("clean", "noisy")
        )
    assert pair_folders(tmp_path, "valid") is None


@pytest.mark.parametrize("made", ["", "clean", "clean noisy.txt"])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_that_is_not_there(tmp_path: Path, made: str, split: str):
    for name in made.split():
        (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"^{tmp_path}: no {split} pairs. Known folders below it: "):
        load_pairs(tmp_path, split)
    for name in ("missing", "x" * 300):  # longer than a name may be
        with pytest.raises(DataError, match=f"{name}: no {split} pairs"):
            load_pairs(tmp_path / name, split)


def test_pairs_go_by_name_whatever_the_extension_rate_and_channels(tmp_path: Path):
    put_pairs(tmp_path, ["s1_1.wav", "deep/er/s2-1.flac", "s3_a b ü.wav"])
    (tmp_path / "noisy" / "s1_1.wav").unlink()
    x = sound(0.5, 44100)
    sf.write(tmp_path / "noisy" / "s1_1.flac", np.stack([x, x], axis=1), 44100)
    pairs = load_pairs(tmp_path, "train")
    assert [(pair.name, pair.speaker) for pair in pairs] == [
        ("deep/er/s2-1", "deep/er:s2"),
        ("s1_1", "s1"),
        ("s3_a b ü", "s3"),
    ]
    assert {pair.frames for pair in pairs} == {RATE // 2}
    assert pairs[1].noisy.name == "s1_1.flac"


def test_small_differences_in_length_leave_the_common_part(tmp_path: Path):
    put_pairs(tmp_path, ["a.wav", "b.wav"], 1)
    put(tmp_path / "noisy" / "a.wav", 1.1)
    put(tmp_path / "clean" / "b.wav", 1.0999)
    assert [pair.frames for pair in load_pairs(tmp_path, "train")] == [RATE, RATE]


# What a stranger's disk holds: what is made of the pair `bad`, and what is said of it.


def _replace(side: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / side / "bad.wav"
        path.unlink()
        make(path)

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no clean file": (
        lambda root: (root / "clean/bad.wav").unlink(),
        "noisy/bad.wav: has no clean file of that name",
    ),
    "no noisy file": (
        lambda root: (root / "noisy/bad.wav").unlink(),
        "clean/bad.wav: has no noisy file of that name",
    ),
    "empty": (_replace("noisy", Path.touch), "noisy/bad.wav: empty: no bytes"),
    "text": (
        _replace("clean", lambda path: path.write_text("RIFF")),
        "clean/bad.wav: cannot be decoded",
    ),
    "cut short": (
        lambda root: os.truncate(root / "noisy/bad.wav", 9000),
        "noisy/bad.wav: cut short or damaged",
    ),
    "NaN": (
        _replace("noisy", lambda path: sf.write(path, np.full(8000, np.nan), RATE, "FLOAT")),
        "noisy/bad.wav: has NaN",
    ),
    "silent": (
        _replace("clean", lambda path: sf.write(path, np.zeros(8000), RATE)),
        "clean/bad.wav: silent",
    ),
    "another length": (
        lambda root: put(root / "noisy/bad.wav", 0.61),
        r"noisy/bad.wav: lasts 0.61 s, its clean file 0.50 s",
    ),
    "broken link": (
        _replace("noisy", lambda path: path.symlink_to("nowhere")),
        "noisy/bad.wav: cannot be opened .No such file",
    ),
    "circular link": (
        _replace("clean", lambda path: path.symlink_to(path)),
        "clean/bad.wav: cannot be opened .Too many",
    ),
    "pipe": (_replace("noisy", os.mkfifo), "noisy/bad.wav: not a file"),
    "test speaker": (
        lambda root: [put(root / side / "p257_001.wav") for side in ("clean", "noisy")],
        "clean/p257_001.wav: p257 is a test speaker of VoiceBank-DEMAND",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_pairs_are_told_and_left_out_on_demand(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
):
    put_pairs(tmp_path, ["good.wav", "bad.wav"])
    change, message = FAULTS[fault]
    change(tmp_path)
    with pytest.raises(DataError, match=message) as raised:
        load_pairs(tmp_path, "train")
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{tmp_path}: 1 files cannot be used:"
    assert lines[-1] == "Repair or remove them, or go on without them: --skip-bad."
    good = [pair.name for pair in load_pairs(tmp_path, "train", skip_bad=True)]
    assert good == (["bad", "good"] if fault == "test speaker" else ["good"])
    assert lines[1] in caplog.text


def test_nothing_left(tmp_path: Path):
    put(tmp_path / "clean" / "a.wav")
    put(tmp_path / "noisy" / "b.wav")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=r"2 files cannot be used:\n(.*\n)*Nothing is left\.$"):
            load_pairs(tmp_path, "train", skip_bad)


def test_long_lists_are_cut(tmp_path: Path):
    for number in range(25):
        (tmp_path / f"{number}.wav").touch()
    with pytest.raises(DataError) as raised:
        load_recordings(tmp_path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 23
    assert lines[0].endswith("25 files cannot be used:")
    assert lines[-2] == "  and 5 more"


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_benchmark_s_speakers_are_for_the_test_only(tmp_path: Path, split: str):
    names = ["vctk/p232/p232_001.wav", "P257-2.wav", "p226_1.wav", "p2323_1.wav", "q_p232.wav"]
    folder = tmp_path if split == "test" else tmp_path / split
    put_pairs(folder, names)
    if split == "test":
        assert len(load_pairs(tmp_path, split)) == 5
        return
    with pytest.raises(DataError, match="3 files cannot be used"):
        load_pairs(tmp_path, split)
    found = [pair.name for pair in load_pairs(tmp_path, split, skip_bad=True)]
    assert found == ["p226_1", "p2323_1"]


# Single recordings


def test_recordings(tmp_path: Path):
    put(tmp_path / "p232_001.wav", 1)
    put(tmp_path / "rain" / "one.flac", 2)
    with pytest.raises(DataError, match=r"p232_001\.wav: p232 is a test speaker"):
        load_recordings(tmp_path)
    first, second = load_recordings(tmp_path, speech=False)
    assert (first.name, first.info.frames) == ("p232_001", RATE)
    assert (second.name, second.path) == ("rain/one", tmp_path / "rain" / "one.flac")
    (kept,) = load_recordings(tmp_path, skip_bad=True)
    assert kept == second


def test_folders_without_recordings(tmp_path: Path):
    (tmp_path / "file.wav").touch()
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    put(tmp_path / "empty" / ".hidden" / "a.wav")
    for use in (find_recordings, load_recordings):
        for missing in (tmp_path / "missing", tmp_path / "file.wav", tmp_path / ("x" * 300)):
            with pytest.raises(DataError, match=f"^{missing}: no such folder"):
                use(missing)
        with pytest.raises(DataError, match=r"empty: no audio in it \(wav, flac, ogg or opus\)$"):
            use(tmp_path / "empty")


def test_two_files_of_one_name(tmp_path: Path):
    put_pairs(tmp_path, ["a.wav"])
    put(tmp_path / "noisy" / "a.flac")
    with pytest.raises(DataError, match=rf"^{tmp_path / 'noisy'}: both .*; remove one$"):
        load_pairs(tmp_path, "train", skip_bad=True)


def test_names_that_are_no_text(tmp_path: Path):
    """A file name of another century, in Latin-1."""
    put_pairs(tmp_path, ["a_1.wav"])
    for side in ("clean", "noisy"):
        content = (tmp_path / side / "a_1.wav").read_bytes()
        Path(os.fsdecode(os.fsencode(tmp_path / side) + b"/caf\xe9_1.wav")).write_bytes(content)
    assert len(load_pairs(tmp_path, "train")) == 2


def test_real_corpora(shared_data: Path):
    with pytest.raises(DataError, match="p232 is a test speaker"):
        load_pairs(shared_data / "voicebank_demand_p232", "train", skip_bad=True)
    sample = load_pairs(shared_data / "voicebank_demand_train_sample", "train")
    assert len(sample) == 22
    assert {pair.speaker for pair in sample} <= {f"p{number}" for number in range(225, 380)}
