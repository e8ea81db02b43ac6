"""A manifest's lines: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import put_pairs

from data.entry import Entry, is_below, path_of, read_entries, to_text
from data.errors import DataError
from data.listing import list_pairs

SHA = "0" * 64


pytestmark = pytest.mark.usefixtures("own_index")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2 is no entry"),
        ("[]", "not an object"),
        ('{"name": "b"}', "files is missing"),
        (json.dumps({"name": "b", "files": {}, "sha256": {}}), "without seconds, speaker"),
        ("SAME", "names a once more"),
        ("0 s", "seconds must be a number above 0"),
        ("NaN s", "seconds must be a number above 0"),
        ("roles", "must name the same roles"),
        ("snr", "snr_db must be a number"),
        ("noise", "noise must be a text"),
        ("empty", "none empty"),
        ("out", "leads out of a folder"),
        ("not plain", "leads out of a folder, or is not plain"),
        ("huge", "seconds must be a number above 0"),
        ("huge integer", "seconds must be a number above 0"),
        ("huge snr", "snr_db must be a number"),
        ("NUL", "must be texts"),
        ("surrogate", "must be texts"),
    ],
)
def test_damaged_lines_are_refused(tmp_path: Path, line: str, reason: str):
    good = Entry("a", {"audio": "a.wav"}, {"audio": SHA}, "x", 1.0)
    record = json.loads(to_text([good]))
    changes = {
        "SAME": {},
        "0 s": {"name": "b", "seconds": 0},
        "NaN s": {"name": "b", "seconds": float("nan")},
        "roles": {"name": "b", "sha256": {"noisy": SHA}},
        "snr": {"name": "b", "snr_db": "loud"},
        "noise": {"name": "b", "noise": 3},
        "empty": {"name": ""},
        "out": {"name": "a/../../b"},
        "not plain": {"name": "a//b"},
        "huge": {"name": "b", "seconds": 1e308},
        "huge integer": {"name": "b", "seconds": 10**400},
        "huge snr": {"name": "b", "snr_db": 10**400},
        "NUL": {"name": "b", "files": {"audio": "a\0"}},
        "surrogate": {"name": "b", "files": {"audio": "\ud800"}},
    }
    if line in changes:
        line = json.dumps(record | changes[line])
    path = path_of(tmp_path)
    path.parent.mkdir()
    path.write_text(to_text([good]) + line + "\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert "python -m data.manifest ROOT" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe"])
def test_files_that_are_no_manifest(tmp_path: Path, content: bytes):
    path = path_of(tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"has no entry|cannot be read"):
        read_entries(path)


def test_a_manifest_of_recordings_is_none_of_pairs(tmp_path: Path):
    put_pairs(tmp_path, ["a_1.wav"])
    entry = Entry("a", {"audio": "a.wav"}, {"audio": SHA}, "x", 1.0)
    path = path_of(tmp_path, "train")
    path.parent.mkdir()
    path.write_text(to_text([entry]))
    with pytest.raises(DataError, match="a is no pair of a clean and a noisy file"):
        list_pairs(tmp_path, "train")


names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(is_below)
entries = st.builds(
    Entry,
    names,
    st.just({"clean": "c.wav", "noisy": "n.wav"}),
    st.just({"clean": SHA, "noisy": SHA}),
    names,
    st.floats(1e-4, 1e4),
    st.none() | st.floats(-100, 100),
    st.none() | names,
)


@given(st.lists(entries, min_size=1, max_size=5, unique_by=lambda entry: entry.name))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, written: list):
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    path.write_text(to_text(written), "utf-8")
    assert read_entries(path) == written
