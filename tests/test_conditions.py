"""Breakdowns of a test by SNR, noise and speaker: where each label comes from, and what is odd."""

from __future__ import annotations

import logging
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus import load_pairs
from data.plan import plan, to_csv
from evaluation.conditions import Breakdown, find_conditions

SNR, NOISE, SPEAKER = "input SNR (dB)", "noise", "speaker"
LOG = "p232_001 bus 17.5\np232_002 living 2.5\np257_001 psquare 12.5\np257_002 bus 2.5\n"
NAMES = ["p232_001", "p232_002", "p257_001", "p257_002"]
MEASURED = {"p232_001": 3.0, "p232_002": 7.0, "p257_001": 1.0, "p257_002": -8.0}


def find(
    names: list[str], snr: dict[str, float] | None = None, root: Path | None = None
) -> dict[str, Breakdown]:
    found = find_conditions(names, snr or {}, root)
    assert len({each.axis for each in found}) == len(found)
    return {each.axis: each for each in found}


def published(root: Path, log: str | bytes = LOG, place: str = "logfiles") -> Path:
    """VoiceBank-DEMAND's folders and its log."""
    for folder in ("clean_testset_wav", "noisy_testset_wav", place):
        (root / folder).mkdir(parents=True, exist_ok=True)
    path = root / place / "log_testset.txt"
    path.write_bytes(log if isinstance(log, bytes) else log.encode())
    return root


# The tables that come with a corpus


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
        f"{path}: lines 1, 6, 7, 8, 9 and 8 more left out: expected NAME NOISE SNR"
    ]


def test_one_malformed_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    find(NAMES, root=published(tmp_path, LOG + "p232_003 bus\n"))
    assert "log_testset.txt: line 5 left out: expected NAME NOISE SNR" in caplog.text


def test_a_log_of_other_files_says_nothing(tmp_path: Path):
    found = find(["a", "b"], {"a": 1.0, "b": 11.0}, published(tmp_path))
    assert {axis: each.source for axis, each in found.items()} == {SNR: "measured"}


def test_the_embedded_corpus_tells_by_its_plan(tiny_corpus: Path):
    names = [pair.name for pair in load_pairs(tiny_corpus, "test")]
    rows = {row.name: row for row in plan(0, 6, 2, 4)}
    for root in (tiny_corpus, tiny_corpus / "test" / "clean"):
        found = find(names, dict.fromkeys(names, 40.0), root)
        assert {each.source for each in found.values()} == {"corpus.csv"}
        assert found[SNR].labels == {name: f"{rows[name].snr_db:g}" for name in names}
        assert found[NOISE].labels == {name: rows[name].noise for name in names}
        assert found[SPEAKER].labels == {name: rows[name].speaker for name in names}


def test_another_corpus_csv_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "corpus.csv").write_text("file,length\np232_001,3\n")
    assert set(find(NAMES, root=tmp_path)) == {SPEAKER}
    assert f"{tmp_path / 'corpus.csv'} is left out: corpus.csv is not a plan" in caplog.text


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


# Names


@pytest.mark.parametrize(
    ("name", "axis", "label"),
    [
        ("p232_001", SPEAKER, "p232"),
        ("s5_400", SPEAKER, "s5"),
        ("p225_001_mic2", SPEAKER, "p225"),
        ("f01_012", SPEAKER, "f01"),
        ("1089/134686/1089-134686-0000", SPEAKER, "1089"),
        ("clnsp25_babble_188218_21_snr5_tl-25_fileid_147", SNR, "5"),
        ("synthetic_emotion_1792_snr-3_tl-35.5_fileid_19", SNR, "-3"),
        ("x_snr0_fileid_1", SNR, "0"),
        ("sp01_babble_sn10", SNR, "10"),
        ("sp01_babble_sn10", NOISE, "babble"),
    ],
)
def test_names_that_tell(name: str, axis: str, label: str):
    others = ["q1_001", "y_snr17_fileid_2", "sp02_car_sn15"]
    for other in others:  # of the same convention, for a second group
        found = find([name, other]).get(axis)
        if found and name in found.labels:
            assert found.labels[name] == label
            assert found.source == "the files' names"
            return
    pytest.fail(f"{name} tells nothing of {axis}")


@pytest.mark.parametrize(
    "name", ["", "clean_fileid_12", "p232", "noise_snr5", "_001", "2024-01-02", "ü_001", "sp01_x"]
)
def test_names_that_do_not(name: str):
    others = ["q1_001", "y_snr17_fileid_2", "sp02_car_sn15", "61-70968-0000"]
    assert all(not find([name, other]) for other in others)


def test_many_nominal_snrs_go_into_bins():
    """The DNS challenge draws whole decibels."""
    names = [f"x_snr{snr}_tl-25_fileid_{snr}" for snr in range(21)]
    found = find(names, dict.fromkeys(names, 99.0))[SNR]
    assert found.source == "the files' names"
    sizes = {label: len(group) for label, group in found.groups.items()}
    assert sizes == {"0 to 5": 5, "5 to 10": 5, "10 to 15": 5, "15 to 20": 5, "20 and above": 1}


# Measured


def test_measured_snrs_go_into_bins():
    snr = dict(zip("abcdefgh", (-30.0, -5.0, -0.01, 0.0, 4.99, 19.0, 20.0, 70.0), strict=True))
    assert find(list(snr), snr)[SNR] == Breakdown(
        SNR,
        "measured",
        {
            "below -5": ["a"],
            "-5 to 0": ["b", "c"],
            "0 to 5": ["d", "e"],
            "15 to 20": ["f"],
            "20 and above": ["g", "h"],
        },
    )


def test_what_is_infinite_is_in_the_outermost_bins_and_nan_in_none():
    snr = {"a": math.inf, "b": -math.inf, "c": math.nan} | {f"x{i}": 7.0 for i in range(9)}
    found = find(list(snr), snr)[SNR]
    assert list(found.groups) == ["below -5", "5 to 10", "20 and above"]
    assert "c" not in found.labels


def test_nominal_and_measured_are_never_mixed(tmp_path: Path):
    names = [f"p232_{i:03d}" for i in range(20)]
    log = "".join(f"{name} bus {2.5 + 5 * (i % 2)}\n" for i, name in enumerate(names[:18]))
    snr = dict.fromkeys(names[:10], 1.0) | dict.fromkeys(names[10:], 11.0)
    found = find(names, snr, published(tmp_path, log))[SNR]
    assert found.source == "log_testset.txt"
    assert list(found.groups) == ["2.5", "7.5"]
    assert set(found.labels) == set(names[:18])

    shorter = "".join(log.splitlines(keepends=True)[:17])
    found = find(names, snr, published(tmp_path, shorter))[SNR]
    assert found.source == "measured"
    assert {label: len(group) for label, group in found.groups.items()} == {
        "0 to 5": 10,
        "10 to 15": 10,
    }


# Left out


def test_one_group_is_no_breakdown(tmp_path: Path):
    """And where all are nominally at one SNR, the measured ones are not asked."""
    root = published(tmp_path, "p232_001 bus 5\np232_002 bus 5.0\n")
    assert find(NAMES[:2], {"p232_001": 1.0, "p232_002": 9.0}, root) == {}


def test_a_tenth_may_lack_a_label_and_no_more():
    snr = {f"x{i:02d}": float(i) for i in range(18)}
    names = [*snr, "y1", "y2"]
    assert SNR in find(names, snr)
    assert find([*names, "y3"], snr) == {}


def test_nothing_to_go_by():
    assert find_conditions([], {}, None) == []
    assert find_conditions(["a", "b"], {}, None) == []
    assert find_conditions([], {"a": 1.0}, None) == []
    assert find_conditions(["a"], {"a": 1.0}, Path("/no/such/folder")) == []


# Odd files


def test_what_is_no_file_is_no_table(tmp_path: Path):
    for name in ("log_testset.txt", "corpus.csv", "speakers.csv"):
        (tmp_path / name).mkdir()
    assert set(find(NAMES, MEASURED, tmp_path)) == {SNR, SPEAKER}


def test_a_file_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    root = published(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert find(NAMES, MEASURED, root)[SNR].source == "measured"
    assert "log_testset.txt is left out: Permission denied" in caplog.text


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_raise(noise: bytes, more: bytes):
    logging.getLogger("evaluation").setLevel(logging.CRITICAL)
    header, row = to_csv(plan(0, 0, 0, 1)).encode().splitlines(keepends=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = published(Path(folder), LOG.encode() + noise + more)
            for corpus in (noise, header + noise, header + row + more + b",1" + noise):
                (root / "corpus.csv").write_bytes(corpus)
                assert SPEAKER in find(NAMES, MEASURED, root)
    finally:
        logging.getLogger("evaluation").setLevel(logging.NOTSET)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.text(max_size=12), max_size=8, unique=True),
    st.dictionaries(st.text(max_size=12), st.floats(), max_size=8),
)
def test_every_utterance_is_in_one_group_at_most(names: list[str], snr: dict[str, float]):
    for found in find([*names, *(name for name in snr if name not in names)], snr).values():
        members = [name for group in found.groups.values() for name in group]
        assert len(members) == len(set(members)) == len(found.labels)
        assert all(found.groups.values())
        assert len(found.groups) > 1
