"""Breakdowns of a test by SNR, noise and speaker: by names, by measurement, and those left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# Names


@pytest.mark.parametrize(
    ("name", "axis", "label"),
    [
        ("p232_001", SPEAKER, "p232"),
        ("s5_400", SPEAKER, "s5"),
        ("p225_001_mic2", SPEAKER, "p225"),
        ("s01_012", SPEAKER, "s01"),
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


# Of anything


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
