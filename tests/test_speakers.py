"""Who speaks in which file, and who is held out."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.speakers import hold_out, is_test_speaker, speaker_by_name, speakers_of
from data.utils import DataError


@pytest.mark.parametrize(
    ("file", "speaker"),
    [
        ("p226_001.wav", "p226"),
        ("19-198-0001.flac", "19"),
        ("a_b-c.wav", "a"),
        ("a-b_c.wav", "a"),
        ("alone.wav", "alone"),
        ("dots.in.name_1.wav", "dots.in.name"),
        ("vctk/p226_001.wav", "p226"),
        ("p226/001.wav", "p226"),
        ("vctk/p226/001.wav", "p226"),
        ("001.wav", "001"),
        ("-rf.wav", "-rf"),
        ("deep/er/q26_001.wav", "deep/er:q26"),
        ("wav48/q26/q26_001.wav", "wav48/q26:q26"),
        # VCTK's numbers stand for the same people anywhere.
        ("noisy_P226 001.wav", "p226"),
        ("p226_mixed_with_p232.wav", "p232"),
        ("testset p257/a_1.wav", "p257"),
        ("xp226_1.wav", "xp226"),
        ("p2260_1.wav", "p2260"),
        ("a/p224_1.wav", "a:p224"),
        ("a/p225_1.wav", "p225"),
        ("a/p376_1.wav", "p376"),
        ("a/p377_1.wav", "a:p377"),
        ("deep/er/p226_001.wav", "p226"),
        # Where a folder is the speaker's, the chapters below it are not speakers of their own.
        ("19/198/19-198-0001.flac", "19:19"),
        ("clean-100/19/198/19-198-0001.flac", "clean-100/19:19"),
        ("wav48/p226/p226_001.wav", "p226"),
    ],
)
def test_speaker_by_name(file: str, speaker: str):
    assert speaker_by_name(file) == speaker


@pytest.mark.parametrize("name", ["p232", "P257", "vctk:p232", "VCTK/p232:x", "p257:a", "a p232-b"])
def test_speakers_of_the_benchmark_s_test(name: str):
    assert is_test_speaker(name)
    assert not is_test_speaker(name.replace("p2", "p32").replace("P2", "P32"))


def _files(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


def test_a_table_tells_more_than_names(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = _files(tmp_path, "a_1.wav", "b/a_2.wav", "b/é_3.wav", "c_4.wav")
    composed = unicodedata.normalize("NFD", "b/é_3.wav")
    # A spreadsheet's mark at the beginning, its line ends, another column, spaces.
    text = f"file,sex,speaker\r\na_1.wav,f,ann\r\nb/a_2.wav,m, bob \r\n{composed},f,zoé\r\n"
    (tmp_path / "speakers.csv").write_text(text, "utf-8-sig", newline="")
    assert list(speakers_of(tmp_path, files).values()) == ["ann", "bob", "zoé", "c"]
    assert caplog.messages == [
        f"{tmp_path / 'speakers.csv'} does not name 1 files, c_4.wav among them: "
        "their speakers are told by their names"
    ]


def test_no_word_of_a_table_that_is_complete_or_absent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    files = _files(tmp_path, "a_1.wav", "b_1.wav")
    assert list(speakers_of(tmp_path, files).values()) == ["a", "b"]
    (tmp_path / "speakers.csv").write_text("speaker,file\nx,a_1.wav\nx,b_1.wav\nx,more.wav\n")
    assert set(speakers_of(tmp_path, files).values()) == {"x"}
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_speakers_are_folders_where_every_file_would_be_a_speaker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
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
        (b"", "expected a first line with the columns file and speaker"),
        (b"name,who\na_1.wav,ann\n", "expected a first line with the columns file and speaker"),
        (b"file;speaker\na_1.wav;ann\n", "expected a first line with the columns file and speaker"),
        (b"name,who\n", "expected a first line with the columns"),
        (b"file,speaker\na_1.wav,ann\nb_1.wav\n", "line 3 lacks one of file, speaker"),
        (b"file,speaker\na_1.wav, \n", "line 2 lacks one of file, speaker"),
        (b"file,speaker\n,ann\n", "line 2 lacks one of file, speaker"),
        (b"file,speaker\na_1.wav,ann\na_1.wav,bob\n", "a_1.wav has two speakers, ann and bob"),
        ("file,speaker\na_1.wav,zoé\n".encode("latin-1"), "is not a table in UTF-8"),
        ("file,speaker\na_1.wav,ann\n".encode("utf-16"), "is not a table in UTF-8"),
        (b"file,speaker\na_1.wav," + 200_000 * b"x", "is not a table in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "speakers.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{tmp_path / 'speakers.csv'}.*{message}"):
        speakers_of(tmp_path, _files(tmp_path, "a_1.wav"))


def test_a_table_that_is_none(tmp_path: Path):
    table = tmp_path / "speakers.csv"
    for make in (table.mkdir, lambda: table.symlink_to("nowhere")):
        make()
        with pytest.raises(DataError, match=f"^{table} cannot be read"):
            speakers_of(tmp_path, _files(tmp_path, "a_1.wav"))
        table.unlink() if table.is_symlink() else table.rmdir()


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_table_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bool
):
    folder = tmp_path_factory.getbasetemp()
    (folder / "speakers.csv").write_bytes((b"file,speaker\n" if header else b"") + content)
    try:
        (speaker,) = speakers_of(folder, _files(folder, "a_1.wav")).values()
    except DataError:
        return
    assert speaker


def test_the_table_of_the_real_corpus(shared_data: Path, caplog: pytest.LogCaptureFixture):
    folder = shared_data / "open_mix" / "clean"
    speakers = speakers_of(folder, sorted(folder.rglob("*.opus")))
    assert (len(speakers), len(set(speakers.values()))) == (2380, 355)
    assert not any(map(is_test_speaker, speakers.values()))
    assert not caplog.messages


# Holding out

_NAMES = st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=30)
_SHARES = st.floats(0.01, 1.99)
_SEEDS = st.integers(0, 9)


@settings(max_examples=50, deadline=None)
@given(_NAMES, _SHARES, _SEEDS)
def test_held_out_are_some_and_never_all(names: set[str], share: float, seed: int):
    held_out = hold_out(names, (), share, seed)
    assert held_out == hold_out(sorted(names) * 2, (), share, seed)
    assert held_out < names
    assert len(held_out) == min(max(1, round(share * len(names))), len(names) - 1)


@settings(max_examples=50, deadline=None)
@given(_NAMES, st.text(max_size=4), _SHARES, _SEEDS)
def test_one_name_more_changes_the_fate_of_at_most_one(
    names: set[str], added: str, share: float, seed: int
):
    before = hold_out(names - {added}, (), share, seed)
    after = hold_out(names | {added}, (), share, seed)
    assert len((before ^ after) - {added}) <= 1


@settings(max_examples=50, deadline=None)
@given(_NAMES, st.data())
def test_wanted_ones_are_held_out_if_all_are_there_and_others_too(
    names: set[str], data: st.DataObject
):
    wanted = data.draw(st.lists(st.sampled_from(sorted(names)), min_size=1, unique=True))
    by_lot = hold_out(names, (), 0.3, 0)
    assert hold_out(names, wanted, 0.3, 0) == (set(wanted) if set(wanted) < names else by_lot)
    assert hold_out(names, [*wanted, "missing"], 0.3, 0) == by_lot


def test_the_seed_draws_and_a_single_name_is_kept():
    names = [f"p{number}" for number in range(225, 253)]
    draws = {frozenset(hold_out(names, (), 0.05, seed)) for seed in range(20)}
    assert len(draws) > 10
    assert hold_out(["one"], (), 0.5, 0) == set()
    assert hold_out(["caf\udce9", "b"], (), 0.5, 0)  # of a file name that is no text


def test_the_draw_stays_what_it_was():
    """If it changes, runs on data without a split of their own select on other speakers."""
    names = [f"p{number}" for number in range(225, 253)]
    assert sorted(hold_out(names, (), 0.1, 0)) == ["p237", "p243", "p248"]


def test_hold_out_goes_on_until_there_are_enough_files():
    """A name counts for an eighth at most; those with very many files are left to training."""
    names = [f"p{n}" for n in range(60) for _ in range(1 + n % 3)] + ["huge"] * 100
    held_out = hold_out(names, (), 0.05, 0, least=8, items=16)
    assert 8 <= len(held_out) <= 12
    assert sum(min(names.count(name), 2) for name in held_out) in (16, 17)
    assert "huge" not in held_out
    assert held_out >= hold_out([n for n in names if n != "huge"], (), 0.05, 0)
    assert len(hold_out(names, (), 0.05, 0, least=8, items=99)) == 12
    assert hold_out(names, ["p1", "p2"], 0.05, 0) == {"p1", "p2"}
    assert hold_out(names, ["p1", "p2"], 0.05, 0, least=8) > {"p1", "p2"}
