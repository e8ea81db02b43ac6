"""Folders and tables of recordings: which files make pairs, who speaks, who is held out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put, put_pairs, sound

from bsbimamba.data.corpus import (
    LAYOUTS,
    Pair,
    find_recordings,
    has_split,
    list_pairs,
    load_pairs,
    load_recordings,
)
from bsbimamba.data.speakers import hold_out, speaker_by_name, speakers_of
from bsbimamba.utils import DataError

RATE = 16000

pytestmark = pytest.mark.usefixtures("own_index")

# Folders of pairs


@pytest.mark.parametrize(
    ("split", "folders"),
    [(split, folders) for split, known in LAYOUTS.items() for folders in known],
)
def test_load_pairs_knows_every_layout_and_takes_the_most_specific(
    tmp_path: Path, split: str, folders: tuple[str, str]
) -> None:
    for side in ("clean", "noisy"):
        put(tmp_path / side / "p1_001.wav")
    nested = "_wav" in folders[0]  # archives may be unpacked into a folder of their name
    clean, noisy = (
        put(tmp_path / side / (side if nested else "") / "p1_001.wav") for side in folders
    )
    assert load_pairs(tmp_path, split) == [Pair("p1_001", clean, noisy, "p1", RATE // 2)]
    if split != "valid":
        with pytest.raises(DataError, match=f"^{tmp_path}: no valid pairs. Known folders below it"):
            load_pairs(tmp_path, "valid")


def test_load_pairs_matches_names_whatever_extension_rate_and_channels(tmp_path: Path) -> None:
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
    assert pairs[1].noisy.name == "s1_1.flac"
    put(tmp_path / "noisy" / "s1_1.flac", 0.6)  # the common part of two lengths is used
    put(tmp_path / "clean" / "deep/er/s2-1.flac", 0.5999)
    assert {pair.frames for pair in load_pairs(tmp_path, "train")} == {RATE // 2}


# What is put beside a good pair, and what is said of it.
FAULTS: dict[str, Callable[[Path], object]] = {
    "clean/bad.wav: has no noisy file of that name": lambda x: put(x / "clean/bad.wav"),
    "noisy/bad.wav: empty: no bytes": lambda x: (
        put(x / "clean/bad.wav"), (x / "noisy/bad.wav").touch()
    ),
    "lasts 0.61 s, its clean file 0.50 s": lambda x: (
        put(x / "clean/bad.wav"), put(x / "noisy/bad.wav", 0.61)
    ),
    "P257_1.wav: p257 is a test speaker of": lambda x: put_pairs(x, ["P257_1.wav"]),
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_load_pairs_names_bad_files_and_leaves_them_out_on_demand(
    tmp_path: Path, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    put_pairs(tmp_path, ["good.wav"])
    FAULTS[message](tmp_path)
    with pytest.raises(DataError, match=rf"1 files cannot .*\n.*{message}.*\n.*--skip-bad\.$"):
        load_pairs(tmp_path, "train")
    assert [pair.name for pair in load_pairs(tmp_path, "train", skip_bad=True)] == ["good"]
    assert message in caplog.text


def test_load_pairs_raises_where_nothing_is_left(tmp_path: Path) -> None:
    put(tmp_path / "clean" / "a.wav")
    put(tmp_path / "noisy" / "b.wav")
    with pytest.raises(DataError, match=r"b.wav: has no clean file.*\nNothing is left\.$"):
        load_pairs(tmp_path, "train", skip_bad=True)


# Folders of recordings


def test_load_recordings_refuses_test_speakers_as_speech(tmp_path: Path) -> None:
    put(tmp_path / "p232_001.wav", 1)
    put(tmp_path / "rain" / "one.flac", 2)
    with pytest.raises(DataError, match=r"p232_001\.wav: p232 is a test speaker"):
        load_recordings(tmp_path)
    first, second = load_recordings(tmp_path, speech=False)
    assert (first.name, first.info.frames) == ("p232_001", RATE)
    assert (second.name, second.path) == ("rain/one", tmp_path / "rain" / "one.flac")
    assert load_recordings(tmp_path, skip_bad=True) == [second]


def test_find_recordings_lists_files_by_name(tmp_path: Path) -> None:
    names = ["b.wav", "a-1.FLAC", "a/ü ö.ogg", "a/b/c.d.opus"]
    for name in [*names, "a/._b.wav", ".hidden/c.wav", "a/notes.txt", "folder.wav/x.mp3"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "itself").symlink_to(tmp_path)  # not followed
    found = find_recordings(tmp_path)
    assert list(found) == ["a/b/c.d", "a/ü ö", "a-1", "b", "folder.wav/x", "link/c.d"]
    (tmp_path / "b.flac").touch()
    with pytest.raises(DataError, match=r"both .*b\.flac and .*b\.wav are there; remove one"):
        find_recordings(tmp_path)


# Tables


def test_load_pairs_reads_a_table(tmp_path: Path) -> None:
    for name in ("one/ü 1.wav", "one/2.wav", "far/3.flac", "x/a.wav", "x/b.wav", "x/c.wav"):
        put(tmp_path / name)
    path = tmp_path / "x" / "pairs.csv"
    path.write_text(
        "\ufeffnoisy,clean,speaker,split,name,other,noise,snr_db\n"
        "a.wav,../one/ü 1.wav,ann,train,,7,bus,2.5\n"
        f'{tmp_path / "x/b.wav"}, ../one/2.wav ,"bob, jr",valid,second,\n'
        "c.wav,../far/3.flac,,test,,\n,,,,,,,\n",
        "utf-8",
    )
    (first,), (second,), (third,) = (load_pairs(path, s) for s in ("train", "valid", "test"))
    assert (first.name, first.speaker) == ("one/ü 1", "ann")
    assert (second.name, second.speaker) == ("second", "bob, jr")
    assert third.speaker == "far"
    assert [p.noisy.name for p in (first, second, third)] == ["a.wav", "b.wav", "c.wav"]
    assert list_pairs(path, "train").noises == {"one/ü 1": ("bus", 2.5)}


def test_table_without_splits_serves_for_training_and_test(tmp_path: Path) -> None:
    put_pairs(tmp_path, ["s1_1.wav", "s2_1.wav"])
    path = tmp_path / "pairs.csv"
    path.write_text("clean,noisy\nclean/s1_1.wav,noisy/s1_1.wav\nclean/s2_1.wav,noisy/s2_1.wav\n")
    assert load_pairs(path, "train") == load_pairs(path, "test")
    assert [pair.speaker for pair in load_pairs(path, "train")] == ["s1", "s2"]
    assert not has_split(path, "valid")
    with pytest.raises(DataError, match=r"pairs.csv: no valid pairs$"):
        list_pairs(path, "valid")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("clean;noisy\na;b\n", "expected a first line with the columns clean and noisy"),
        ("clean,noisy\n\na.wav,\n", "the row 'a.wav,' lacks one of clean, noisy"),
        ("clean,noisy\na.wav,zo\udce9\n", "as a table in UTF-8"),
        ("clean,noisy\na.wav,b.wav\na.wav,c.wav\n", "two pairs are called a"),
        ("clean,noisy,name\na.wav,b.wav,../x\n", "the name '../x' leads out of"),
        ("clean,noisy,name\na.wav,b.wav,/x\n", "the name '/x' leads out of"),
        ("clean,noisy,split\na.wav,b.wav,train\nc.wav,d.wav,\n", "split '' is not one of"),
        ("clean,noisy,snr_db\na.wav,b.wav,loud\n", "snr_db 'loud' is not a number"),
        (None, "cannot be read .*No such file"),
    ],
)
def test_unusable_table_is_an_error(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "pairs.csv"
    if text:
        path.write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=f"^{path}.*{reason}"):
        load_pairs(path, "train")


# Speakers


@pytest.mark.parametrize(
    ("file", "speaker"),
    [
        ("19-198-0001.flac", "19"),
        ("deep/er/q26_001.wav", "deep/er:q26"),
        ("q26/001.wav", "q26"),
        # VCTK's numbers stand for the same people anywhere.
        ("vctk/P226/001.wav", "p226"),
        ("p226_mixed_with_p232.wav", "p232"),
        ("a/p376_1.wav", "p376"),
        ("a/p377_1.wav", "a:p377"),
        ("a/book_00041_chp_0009_reader_06709_8.wav", "reader_06709"),  # the DNS challenge's
        # Where a folder is the speaker's, the chapters below it are not speakers of their own.
        ("clean-100/19/198/19-198-0001.flac", "clean-100/19:19"),
    ],
)
def test_speaker_by_name(file: str, speaker: str) -> None:
    assert speaker_by_name(file) == speaker


def test_speakers_csv_goes_before_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / name for name in ("a_1.wav", "b/a_2.wav", "b/é_3.wav", "c_4.wav")]
    # A spreadsheet's mark at the beginning, its line ends, another column, spaces.
    text = "file,sex,speaker\r\na_1.wav,f,ann\r\nb/a_2.wav,m, bob \r\nb/é_3.wav,f,zoé\r\n"
    (tmp_path / "speakers.csv").write_text(text, "utf-8-sig", newline="")
    assert list(speakers_of(tmp_path, files[:3]).values()) == ["ann", "bob", "zoé"]
    assert not caplog.messages
    assert speakers_of(tmp_path, files)[files[3]] == "c"
    assert "does not name 1 files, c_4.wav among them" in caplog.text
    with (tmp_path / "speakers.csv").open("a") as file:
        file.write("a_1.wav,f,eve\n")
    with pytest.raises(DataError, match=r"a_1\.wav has two speakers"):
        speakers_of(tmp_path, files)


@pytest.mark.parametrize(
    "speakers",
    [
        {"ann/hello": "ann", "ann/again": "ann", "b/bob/yes": "b/bob"},
        {"ann/x_1": "ann:x", "ann/x_2": "ann:x", "bob/y": "bob:y"},
        {"ann/hello": "ann:hello", "b/bob/yes": "b/bob:yes"},
    ],
)
def test_folders_are_speakers_where_names_tell_none(speakers: dict[str, str]) -> None:
    found = speakers_of(Path("x"), [Path("x", f"{name}.wav") for name in speakers])
    assert list(found.values()) == list(speakers.values())


# Holding out

_NAMES = st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=30)
_SHARES = st.floats(0.01, 1.99)


@settings(max_examples=50, deadline=None)
@given(_NAMES, st.text(max_size=4), _SHARES, st.integers(0, 9))
def test_hold_out_takes_a_share_and_depends_little_on_the_others(
    names: set[str], added: str, share: float, seed: int
) -> None:
    held_out = hold_out(names, (), share, seed)
    assert held_out == hold_out(sorted(names) * 2, (), share, seed)
    assert held_out < names
    assert len(held_out) == min(max(1, round(share * len(names))), len(names) - 1)
    before, after = (hold_out(x, (), share, seed) for x in (names - {added}, names | {added}))
    assert len((before ^ after) - {added}) <= 1


def test_hold_out_takes_the_wanted_ones_and_stays_what_it_was() -> None:
    """If it changes, runs on data without a split of their own select on other speakers."""
    names = [f"p{number}" for number in range(225, 253)]
    by_hash = {"p237", "p243", "p248"}
    assert hold_out(names, (), 0.1, 0) == hold_out(names, ["p225", "no"], 0.1, 0) == by_hash
    assert hold_out(names, ["p225", "p226"], 0.1, 0) == {"p225", "p226"}
    assert hold_out(names, (), 0.1, 1) != by_hash
    assert hold_out(["one"], (), 0.5, 0) == set()


def test_hold_out_goes_on_until_there_are_enough_files() -> None:
    """A name counts for an eighth at most; those with very many files are left to training."""
    names = [f"p{n}" for n in range(60) for _ in range(1 + n % 3)] + ["huge"] * 100
    held_out = hold_out(names, (), 0.05, 0, least=8, items=16)
    assert sum(min(names.count(name), 2) for name in held_out) in (16, 17)
    assert "huge" not in held_out
    assert len(hold_out(names, (), 0.05, 0, least=8, items=99)) == 12
    assert hold_out(names, ["p1", "p2"], 0.05, 0, least=8) == {"p1", "p2"}
