"""What the tables beside a corpus say of its files' conditions: wherever and whatever they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conditions import LOG, MEASURED, NAMES, NOISE, SNR, SPEAKER, find, published

from evaluation.conditions import Breakdown, find_conditions


def test_the_log_of_voicebank_demand(tmp_path: Path):
    assert find_conditions(NAMES, MEASURED, published(tmp_path)) == [
        Breakdown(
            SNR,
            "log_testset.txt",
            {"2.5": ["p232_002", "p257_002"], "12.5": ["p257_001"], "17.5": ["p232_001"]},
        ),
        Breakdown(
            NOISE,
            "log_testset.txt",
            {"bus": ["p232_001", "p257_002"], "living": ["p232_002"], "psquare": ["p257_001"]},
        ),
        Breakdown(
            SPEAKER,
            "the files' names",
            {"p232": ["p232_001", "p232_002"], "p257": ["p257_001", "p257_002"]},
        ),
    ]


def test_labels_are_the_groups_by_utterance(tmp_path: Path):
    found = find(NAMES, root=published(tmp_path))
    assert found[NOISE].labels == {
        "p232_001": "bus",
        "p232_002": "living",
        "p257_001": "psquare",
        "p257_002": "bus",
    }


@pytest.mark.parametrize(
    ("place", "root"),
    [
        (".", "."),
        ("logfiles", "."),
        (".", "clean_testset_wav"),  # as of `evaluate.py --clean`
        ("logfiles", "clean_testset_wav"),
        ("clean_testset_wav", "clean_testset_wav"),
    ],
)
def test_where_the_log_may_lie(tmp_path: Path, place: str, root: str):
    published(tmp_path, place=place)
    assert find(NAMES, MEASURED, tmp_path / root)[SNR].source == "log_testset.txt"


@pytest.mark.parametrize("place", [".", "test", "test/logfiles"])
@pytest.mark.parametrize("root", [".", "test/clean"])
def test_where_it_may_lie_in_our_own_layout(tmp_path: Path, place: str, root: str):
    for folder in ("test/clean", "test/noisy", place):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "log_testset.txt").write_text(LOG)
    assert find(NAMES, MEASURED, tmp_path / root)[SNR].source == "log_testset.txt"


def test_a_root_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published(tmp_path, place=".")
    monkeypatch.chdir(tmp_path / "clean_testset_wav")
    assert find(NAMES, root=Path())[SNR].source == "log_testset.txt"


def test_the_log_names_files_without_their_folders(tmp_path: Path):
    names = [f"speech/{name}" for name in NAMES]
    found = find(names, root=published(tmp_path))
    assert found[NOISE].groups["bus"] == ["speech/p232_001", "speech/p257_002"]
    assert set(found[SPEAKER].groups) == {"p232", "p257"}


def test_any_white_space_byte_order_mark_and_extension(tmp_path: Path):
    log = b"\xef\xbb\xbf" + LOG.replace(" ", ".wav\t ", 1).replace("\n", " \r\n\r\n").encode()
    assert find(NAMES, root=published(tmp_path, log))[SNR].labels["p232_001"] == "17.5"


def test_malformed_lines_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    log = (
        "# file noise SNR\n"
        + LOG
        + "p232_003 bus\np232_004 bus loud\np232_005 bus nan\n"
        + 9 * "x\n"
    )
    found = find(NAMES, root=published(tmp_path, log))
    assert len(found[SNR].labels) == 4
    path = tmp_path / "logfiles" / "log_testset.txt"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: no NAME NOISE SNR in lines 1, 6, 7, 8, 9 and 8 more"
    ]


def test_a_log_of_other_files_says_nothing(tmp_path: Path):
    found = find(["a", "b"], {"a": 1.0, "b": 11.0}, published(tmp_path))
    assert {axis: each.source for axis, each in found.items()} == {SNR: "measured"}


def test_a_table_of_pairs_tells_conditions(tmp_path: Path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "clean,noisy,speaker,noise,snr_db\na.wav,n/a.wav,x,bus,2.5\nb.wav,n/b.wav,y,cafe,-5\n"
    )
    found = find(["a", "b"], {"a": 40.0, "b": 1.0}, table)
    assert {each.source for each in found.values()} == {"pairs.csv"}
    assert found[SPEAKER].groups == {"x": ["a"], "y": ["b"]}
    assert found[NOISE].groups == {"bus": ["a"], "cafe": ["b"]}
    assert found[SNR].groups == {"-5": ["b"], "2.5": ["a"]}
    table.write_text("clean,noisy\na.wav,n/a.wav\nb.wav,n/b.wav\n")
    assert {each.source for each in find(["a", "b"], {"a": 4.0, "b": 9.0}, table).values()} == {
        "pairs.csv",
        "measured",
    }


def test_speakers_csv_is_believed_before_names(tmp_path: Path):
    folder = published(tmp_path) / "clean_testset_wav"
    for name in NAMES:
        (folder / f"{name}.wav").touch()
    lines = [f"{name}.wav,{who}\n" for name, who in zip(NAMES, "BABA", strict=True)]
    (folder / "speakers.csv").write_text("file,speaker\n" + "".join(lines))
    for root in (tmp_path, folder):
        found = find(NAMES, root=root)[SPEAKER]
        assert found.source == "speakers.csv"
        assert found.groups == {"A": ["p232_002", "p257_002"], "B": ["p232_001", "p257_001"]}


def test_a_damaged_speakers_csv_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = published(tmp_path) / "clean_testset_wav"
    (folder / "p232_001.wav").touch()
    (folder / "speakers.csv").write_bytes(b"file,speaker\n\xff\xfe\n")
    assert find(NAMES, root=tmp_path)[SPEAKER].source == "the files' names"
    assert f"{folder / 'speakers.csv'} is left out" in caplog.text


def test_what_is_no_file_is_no_table(tmp_path: Path):
    for name in ("log_testset.txt", "speakers.csv"):
        (tmp_path / name).mkdir()
    assert set(find(NAMES, MEASURED, tmp_path)) == {SNR, SPEAKER}


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_in_a_log_raise(noise: bytes):
    with tempfile.TemporaryDirectory() as folder:
        root = published(Path(folder), LOG.encode() + noise)
        assert SPEAKER in find(NAMES, MEASURED, root)
