"""Who speaks in which file, and who is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bsbimamba.data.speakers import hold_out, is_test_speaker, speaker_by_name, speakers_of
from bsbimamba.utils import DataError


@pytest.mark.parametrize(
    ("file", "speaker"),
    [
        ("19-198-0001.flac", "19"),
        ("a-b_c.wav", "a"),
        ("001.wav", "001"),
        ("deep/er/q26_001.wav", "deep/er:q26"),
        ("q26/001.wav", "q26"),
        # VCTK's numbers stand for the same people anywhere.
        ("deep/er/p226_001.wav", "p226"),
        ("vctk/p226/001.wav", "p226"),
        ("noisy_P226 001.wav", "p226"),
        ("p226_mixed_with_p232.wav", "p232"),
        ("a/p225_1.wav", "p225"),
        ("a/p376_1.wav", "p376"),
        ("a/p377_1.wav", "a:p377"),
        # Where a folder is the speaker's, the chapters below it are not speakers of their own.
        ("clean-100/19/198/19-198-0001.flac", "clean-100/19:19"),
    ],
)
def test_speaker_by_name(file: str, speaker: str) -> None:
    assert speaker_by_name(file) == speaker


@pytest.mark.parametrize("name", ["p232", "P257", "VCTK/p232:x", "a p232-b"])
def test_is_test_speaker(name: str) -> None:
    assert is_test_speaker(name)
    assert not is_test_speaker(name.replace("p2", "p32").replace("P2", "P32"))


def _files(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


def test_speakers_csv_goes_before_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = _files(tmp_path, "a_1.wav", "b/a_2.wav", "b/é_3.wav", "c_4.wav")
    # A spreadsheet's mark at the beginning, its line ends, another column, spaces.
    text = "file,sex,speaker\r\na_1.wav,f,ann\r\nb/a_2.wav,m, bob \r\nb/é_3.wav,f,zoé\r\n"
    (tmp_path / "speakers.csv").write_text(text, "utf-8-sig", newline="")
    assert list(speakers_of(tmp_path, files).values()) == ["ann", "bob", "zoé", "c"]
    assert "does not name 1 files, c_4.wav among them" in caplog.text
    caplog.clear()
    assert len(speakers_of(tmp_path, files[:3])) == 3
    assert not caplog.messages


def test_folders_are_speakers_where_names_tell_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = _files(tmp_path, "ann/hello.wav", "ann/again.wav", "b/bob/yes.wav")
    assert list(speakers_of(tmp_path, files).values()) == ["ann", "ann", "b/bob"]
    assert "each folder counts as one speaker" in caplog.text
    named = _files(tmp_path, "ann/x_1.wav", "ann/x_2.wav", "bob/y.wav")
    assert list(speakers_of(tmp_path, named).values()) == ["ann:x", "ann:x", "bob:y"]
    assert list(speakers_of(tmp_path, files[:1] + files[2:]).values()) == ["ann:hello", "b/bob:yes"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file;speaker\na_1.wav;ann\n", "expected a first line with the columns file and speaker"),
        (b"file,speaker\na_1.wav,ann\nb_1.wav\n", "line 3 lacks one of file, speaker"),
        (b"file,speaker\na_1.wav,ann\na_1.wav,bob\n", "a_1.wav has two speakers, ann and bob"),
        ("file,speaker\na_1.wav,zoé\n".encode("latin-1"), "is not a table in UTF-8"),
    ],
)
def test_speakers_csv_that_cannot_be_used_is_an_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "speakers.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'speakers.csv'}.*{message}"):
        speakers_of(tmp_path, _files(tmp_path, "a_1.wav"))


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


def test_hold_out_takes_the_wanted_ones_if_all_are_there() -> None:
    names = ["a", "b", "c", "d"]
    by_hash = hold_out(names, (), 0.3, 0)
    assert hold_out(names, ["b", "d"], 0.3, 0) == {"b", "d"}
    assert hold_out(names, ["b", "missing"], 0.3, 0) == hold_out(names, names, 0.3, 0) == by_hash


def test_hold_out_draws_by_seed_and_stays_what_it_was() -> None:
    """If it changes, runs on data without a split of their own select on other speakers."""
    names = [f"p{number}" for number in range(225, 253)]
    assert sorted(hold_out(names, (), 0.1, 0)) == ["p237", "p243", "p248"]
    assert len({frozenset(hold_out(names, (), 0.05, seed)) for seed in range(20)}) > 10
    assert hold_out(["one"], (), 0.5, 0) == set()


def test_hold_out_goes_on_until_there_are_enough_files() -> None:
    """A name counts for an eighth at most; those with very many files are left to training."""
    names = [f"p{n}" for n in range(60) for _ in range(1 + n % 3)] + ["huge"] * 100
    held_out = hold_out(names, (), 0.05, 0, least=8, items=16)
    assert 8 <= len(held_out) <= 12
    assert sum(min(names.count(name), 2) for name in held_out) in (16, 17)
    assert "huge" not in held_out
    assert held_out >= hold_out([n for n in names if n != "huge"], (), 0.05, 0)
    assert len(hold_out(names, (), 0.05, 0, least=8, items=99)) == 12
    assert hold_out(names, ["p1", "p2"], 0.05, 0, least=8) > {"p1", "p2"}
