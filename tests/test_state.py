"""A run's state in parts: cut, carried, put together, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from saved_runs import change, load, save_run

from data.errors import DataError
from data.files import sha256_of
from data.lock import Lock
from tools.state import carried, join, progress, reached, split, step_of

SIZE = 20_000
FILES = ("best.pt", "good.pt", "last.pt", "metrics.jsonl", "config.json")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = save_run(tmp_path / "abl3-0", step=7, name="last.pt")
    save_run(folder, step=5, name="best.pt")
    os.link(folder / "last.pt", folder / "good.pt")
    (folder / "previous.pt").write_bytes(b"stays behind")
    (folder / "metrics.jsonl").write_text('{"step": 7}\n')
    (folder / "config.json").write_text("{}\n")
    return folder


@pytest.fixture
def state(run: Path, tmp_path: Path) -> Path:
    split(run, tmp_path / "state", SIZE)
    return tmp_path / "state"


def test_a_run_comes_through_whole_in_parts_of_the_size(run: Path, tmp_path: Path) -> None:
    files = split(run, tmp_path / "state", SIZE)
    assert sorted(files) == sorted((tmp_path / "state").iterdir())
    sizes = [path.stat().st_size for path in files[:-1]]
    assert set(sizes[:-1]) == {SIZE}
    assert 0 < sizes[-1] <= SIZE
    # Two names of one file were stored once.
    assert sum(sizes) < sum((run / name).stat().st_size for name in FILES)
    other = tmp_path / "elsewhere" / "abl3-0"
    assert join(tmp_path / "state", other)
    assert {p.name for p in other.iterdir() if p.suffix != ".lock"} >= set(FILES)
    assert not (other / "previous.pt").exists()
    for name in FILES:
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_what_has_come_as_far_is_left_alone(run: Path, state: Path, tmp_path: Path) -> None:
    content = (run / "last.pt").read_bytes()
    assert not join(state, run)
    assert (run / "last.pt").read_bytes() == content
    behind = save_run(tmp_path / "behind" / "abl3-0", step=6, name="last.pt")
    assert join(state, behind)
    assert step_of(behind) == 7
    assert not join(tmp_path / "nothing", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_of_as_many_steps_the_validated_state_is_further(run: Path, tmp_path: Path) -> None:
    save_run(run, step=9, name="last.pt")
    there = tmp_path / "state"
    split(run, there)
    behind = tmp_path / "behind" / "abl3-0"
    assert join(there, behind)
    values = load(run / "last.pt")["values"] | {"validated": 2}
    change(run / "last.pt", values=values)
    assert reached(run) == (9, True) > carried(there, "abl3-0")
    split(run, there)
    assert carried(there, "abl3-0") == (9, True)
    assert join(there, behind)
    assert reached(behind) == (9, True)
    assert not join(there, behind)


def test_a_later_state_replaces_an_earlier_one_alone(run: Path, state: Path) -> None:
    other = save_run(run.parent / "abl3-1", step=1, name="last.pt")
    theirs = split(other, state, SIZE)
    save_run(run, step=9, name="last.pt")
    ours = split(run, state, SIZE)
    assert sorted(state.iterdir()) == sorted([*theirs, *ours])


@pytest.mark.parametrize(
    ("how", "message"),
    [("remove", "is missing"), ("cut", "is not what"), ("flip", "is not what")],
)
def test_a_damaged_part_is_named(how: str, message: str, state: Path, tmp_path: Path) -> None:
    part = sorted(state.glob("*.001"))[0]
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    if how == "remove":
        part.unlink()
    else:
        part.write_bytes(content if how == "flip" else content[:99])
    with pytest.raises(DataError, match=f"{part.name} {message}"):
        join(state, tmp_path / "other" / "abl3-0")
    left = list((tmp_path / "other" / "abl3-0").iterdir())
    assert [path.name for path in left] in ([], [".lock"])


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', '{"step": "x", "parts": []}'])
def test_a_damaged_list_is_told(text: str, state: Path, tmp_path: Path) -> None:
    (state / "abl3-0.state.json").write_text(text)
    with pytest.raises(DataError, match=r"state.json is damaged"):
        join(state, tmp_path / "other" / "abl3-0")


def test_parts_of_other_folders_are_refused(state: Path, tmp_path: Path) -> None:
    listing = state / "abl3-0.state.json"
    content = json.loads(listing.read_text())
    content["parts"][0]["name"] = "../secret"
    listing.write_text(json.dumps(content))
    with pytest.raises(DataError, match="outside its folder"):
        join(state, tmp_path / "other" / "abl3-0")


def test_what_is_no_archive_is_told(state: Path, tmp_path: Path) -> None:
    part = state / "abl3-0.part"
    part.write_bytes(b"no archive" * 100)
    listing = state / "abl3-0.state.json"
    parts = [{"name": part.name, "sha256": sha256_of(part)}]
    content = {"step": 9, "sha256": parts[0]["sha256"], "parts": parts}
    listing.write_text(json.dumps(content | {"sha256": "0" * 64}))
    with pytest.raises(DataError, match="do not make up what was cut"):
        join(state, tmp_path / "other" / "abl3-0")
    listing.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is not a run's state"):
        join(state, tmp_path / "other" / "abl3-0")


def test_a_run_that_is_being_trained_is_not_replaced(state: Path, tmp_path: Path) -> None:
    behind = save_run(tmp_path / "behind" / "abl3-0", step=6, name="last.pt")
    lock = Lock(behind, "")
    try:
        with pytest.raises(DataError, match="join its state later"):
            join(state, behind)
    finally:
        lock.release()
    assert step_of(behind) == 6


def test_nothing_trained_is_nothing_to_carry(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no last.pt"):
        split(tmp_path, tmp_path / "state")
    assert step_of(tmp_path) == 0
    assert progress(tmp_path) is None


def test_a_run_that_its_previous_checkpoint_saves_is_further(state: Path, tmp_path: Path) -> None:
    here = save_run(tmp_path / "here" / "abl3-0", step=9, name="previous.pt")
    (here / "last.pt").write_bytes(b"cut")
    assert step_of(here) == 9
    assert not join(state, here)


def test_a_run_of_other_settings_is_not_replaced(state: Path, tmp_path: Path) -> None:
    other = save_run(tmp_path / "other" / "abl3-0", seed=4, step=2, name="last.pt")
    with pytest.raises(DataError, match=r"is of another run than .*: they differ in seed"):
        join(state, other)
    assert step_of(other) == 2


def test_parts_of_runs_with_patterns_in_their_names_are_left(run: Path, tmp_path: Path) -> None:
    theirs = split(run, tmp_path / "state", SIZE)
    split(save_run(tmp_path / "abl[3]-0", step=1, name="last.pt"), tmp_path / "state", SIZE)
    assert all(path.is_file() for path in theirs)
