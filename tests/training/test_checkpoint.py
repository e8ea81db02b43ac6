"""Checkpoint files: torn, flipped, on full disks, of something else; which one a run goes on from,
and what is loaded of one for evaluation."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_runs import change, load, save_run

from abl1.mbs_net import MBSNet
from bsbimamba.inference import trained
from bsbimamba.inference.trained import load_run
from bsbimamba.training.checkpoint import CheckpointError, Checkpoints, read, write
from bsbimamba.training.config import Config, ConfigError

STATE = {"ema": {"x": torch.arange(50.0)}, "values": {"step": 3}, "network": "n", "config": "{}"}


def state(step: int) -> dict[str, Any]:
    return {**STATE, "values": {"step": step}}


def step_of(path: Path) -> int:
    return read(path)["values"]["step"]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, MBSNet, Config(), "data", 100)


# The file


def test_written_state_is_read_by_everyone(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write(path, STATE)
    found = read(path)
    for state in (found, torch.load(path, weights_only=True)):
        assert torch.equal(state["ema"]["x"], STATE["ema"]["x"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bit_or_torn_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "x.pt"
    write(path, STATE)
    content = path.read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    kept, flipped = place // 8, bytearray(content)
    flipped[kept] ^= 1 << place % 8
    for torn in (content[:kept], content[:kept] + bytes(len(content) - kept - 1)):
        path.write_bytes(torn)
        with pytest.raises(CheckpointError, match=r"x\.pt is damaged"):
            read(path)
    path.write_bytes(flipped)
    # Between the records of an archive there are bytes that say nothing.
    with suppress(CheckpointError):
        assert str(read(path)) == str(STATE)


def test_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    """With a limit on the size of files, in a process of its own: a real failing write."""
    write(tmp_path / "last.pt", STATE)
    code = f"""
        import resource, signal, torch
        from pathlib import Path
        from bsbimamba.training.checkpoint import write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        path = Path({os.fspath(tmp_path)!r})
        write(path / "last.pt", {{"x": torch.zeros(10**6)}}, path / "previous.pt")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "last.pt cannot be written: File too large. What was saved before" in result.stderr
    assert step_of(tmp_path / "last.pt") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


# Which one a run continues from


def test_last_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        checkpoints.save(state(step))
    checkpoints.save(state(4), best=True)
    assert {p.stem: step_of(p) for p in tmp_path.iterdir()} == {"last": 3, "previous": 2, "best": 4}
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == checkpoints.last


@pytest.mark.parametrize("fault", ["flipped", "torn", "empty", "gone"])
def test_previous_takes_the_place_of_a_damaged_last(fault: str, checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(state(step))
    content = bytearray(checkpoints.last.read_bytes())
    if fault == "gone":
        checkpoints.last.unlink()
    else:
        content[content.index(b"optim.epochs")] ^= 16
        kept = {"flipped": len(content), "torn": 1000, "empty": 0}[fault]
        checkpoints.last.write_bytes(content[:kept])
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == checkpoints.previous
    assert step_of(checkpoints.last) == found[1]["values"]["step"] == 1


def test_two_damaged_checkpoints_are_named(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(state(step))
    for path in (checkpoints.last, checkpoints.previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"(?s)last\.pt is.*previous\.pt is.*--fresh"):
        checkpoints.newest()


# A run that is loaded for evaluation


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """The checkpoint of a run, to be spoilt by the test."""
    return save_run(tmp_path / "run") / "best.pt"


def test_load_run_gives_averaged_weights_and_where_they_are_from(best: Path) -> None:
    before = load(best)
    weights = {key: value + 1 for key, value in before["ema"]["model"].items()}
    change(best, ema={"model": weights, "updates": 0})
    found = load_run(best.parent)
    assert not found.network.training
    assert (found.checkpoint, found.step, found.config.model["channels"]) == ("best.pt", 3, 16)
    state = found.network.state_dict()
    assert state.keys() == before["model"].keys()
    for key, value in before["model"].items():
        assert torch.equal(state[key], value + 1)


def test_load_run_takes_a_folders_last_checkpoint_else_its_best(best: Path) -> None:
    assert load_run(best.parent).checkpoint == "best.pt"
    save_run(best.parent, step=9, name="last.pt")
    assert load_run(best.parent).step == 9
    assert load_run(best).step == 3


class Evil:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_checkpoint_cannot_run_code(best: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    change(best, values=Evil(mark))
    for content in (best.read_bytes(), pickle.dumps(Evil(mark), protocol=2)):
        best.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or is not a checkpoint"):
            load_run(best)
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, torch.zeros(3)])
def test_file_of_something_else_is_refused(best: Path, content: Any) -> None:
    write(best, content)
    with pytest.raises(CheckpointError, match=r"best\.pt is not a checkpoint of this project"):
        load_run(best)


FIT = "does not fit this version"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": ""}, f"{FIT}.*there is no network"),
        ({"network": "os:system"}, f"{FIT}.*there is no network"),
        ({"network": "abl3.mbs_net:Absent"}, f"{FIT}.*there is no network"),
        ({"network": "bsbimamba.network.net:BandSplitNet"}, f"{FIT}.*there is no network"),
        ({"network": "abl1.mbs_net:MBSNet"}, f"{FIT}.*Unexpected key"),
        ({"config": "not JSON"}, "not a configuration of this version"),
        ({"config": json.dumps({"sed": 1})}, "unknown setting 'sed'"),
        ({"config": json.dumps({"model.chanels": 16})}, "unknown setting 'model.chanels'"),
        ({"config": json.dumps({"model.channels": 24})}, "size mismatch"),
        ({"config": json.dumps({"model.channels": 0})}, FIT),
        ({"ema": {"model": {}}}, FIT),
        ({"values": {"step": "three"}}, FIT),
    ],
)
def test_checkpoint_of_another_make_is_refused(
    best: Path, changes: dict[str, Any], reason: str
) -> None:
    change(best, **changes)
    with pytest.raises(CheckpointError, match=f"(?s)best.pt.*{reason}"):
        load_run(best)


@pytest.mark.parametrize("place", ["models/evil", "runs", "abl3/deep", ""])
def test_nothing_but_networks_is_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model from elsewhere, put where models are, brings no code along."""
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(trained, "SOURCES", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = ".".join([*Path(place).parts, "payload"])
    with pytest.raises(ConfigError, match="there is no network"):
        trained.network_with(f"{name}:Net", {}, {})
    assert not (tmp_path / "ran").exists()
