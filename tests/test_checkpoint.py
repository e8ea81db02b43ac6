"""Checkpoint files: torn, flipped, on full disks, of something else; which one a run goes on from,
and what is loaded of one for evaluation."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_runs import change, load, save_run

from abl1.mbs_net import MBSNet
from bsbimamba.training import trained
from bsbimamba.training.checkpoint import CheckpointError, Checkpoints, pack, read, unpack, write
from bsbimamba.training.config import Config, ConfigError
from bsbimamba.training.trained import load_trained

STATE = {"ema": {"x": torch.arange(50.0)}, "values": {"step": 3}, "network": "n", "config": "{}"}


def state(step: int) -> dict[str, Any]:
    return {**STATE, "values": {"step": step}}


def step_of(path: Path) -> int:
    return unpack(read(path), path)["values"]["step"]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, MBSNet, Config(), "data")


# The file


def test_packed_state_is_read_by_everyone(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write(path, pack(STATE))
    assert torch.equal(unpack(read(path), path)["ema"]["x"], STATE["ema"]["x"])
    assert torch.equal(torch.load(path, weights_only=True)["ema"]["x"], STATE["ema"]["x"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bit_or_torn_file_is_noticed(data: st.DataObject) -> None:
    content = pack(STATE)
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << place % 8
    kept = place // 8
    for damaged in (bytes(flipped), content[:kept], content[:kept] + bytes(len(content) - kept)):
        if damaged != content:
            with pytest.raises(CheckpointError, match=r"x\.pt is damaged"):
                unpack(damaged, Path("x.pt"))


def test_write_flushes_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("flush"), fsync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda path, target: (done.append("rename"), replace(path, target))[1]
    )
    write(tmp_path / "last.pt", pack(STATE))
    assert done == ["flush", "rename"]


def test_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    """With a limit on the size of files, in a process of its own: a real failing write."""
    write(tmp_path / "last.pt", pack(STATE))
    code = f"""
        import resource, signal, sys, torch
        from pathlib import Path
        from bsbimamba.training.checkpoint import CheckpointError, pack, write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write(Path({os.fspath(tmp_path)!r}) / "last.pt", pack({{"x": torch.zeros(10**6)}}))
        except CheckpointError as error:
            print(error)
            sys.exit(7)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 7, result.stderr
    assert "last.pt cannot be written: File too large" in result.stdout
    assert step_of(tmp_path / "last.pt") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


# Which one is gone on from


def test_last_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        checkpoints.save(state(step))
    checkpoints.save(state(4), best=True)
    names = ("last", "previous", "best")
    assert [step_of(tmp_path / f"{name}.pt") for name in names] == [3, 2, 4]
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == checkpoints.last
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


@pytest.mark.parametrize("fault", ["flipped", "torn", "empty", "gone"])
def test_previous_takes_the_place_of_a_damaged_last(fault: str, checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(state(step))
    content = bytearray(checkpoints.last.read_bytes())
    if fault == "gone":
        checkpoints.last.unlink()
    else:
        content[len(content) // 2] ^= 16
        kept = {"flipped": len(content), "torn": 1000, "empty": 0}[fault]
        checkpoints.last.write_bytes(content[:kept])
    found = checkpoints.newest()
    assert found is not None
    assert found[0] == checkpoints.previous
    checkpoints.make_last(found[1], "damaged.pt")
    assert step_of(checkpoints.last) == 1
    if fault != "gone":
        assert checkpoints.last.with_name("damaged.pt").read_bytes() == content[:kept]


def test_two_damaged_checkpoints_are_named(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        checkpoints.save(state(step))
    for path in (checkpoints.last, checkpoints.previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"(?s)last\.pt is.*previous\.pt is.*--fresh"):
        checkpoints.newest()


def test_good_is_what_last_was_when_it_was_copied(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 4):
        checkpoints.save(state(step))
        if step == 2:
            checkpoints.copy_last(checkpoints.good)
    found = checkpoints.newest(good=True)
    assert found is not None
    assert found[0] == checkpoints.good
    assert step_of(checkpoints.good) == 2
    checkpoints.good.write_bytes(b"torn")
    found = checkpoints.newest(good=True)
    assert found is not None
    assert found[0] == checkpoints.last


# A run that is loaded for evaluation


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """The checkpoint of a run, to be spoilt by the test."""
    return save_run(tmp_path / "run") / "best.pt"


def test_load_trained_gives_averaged_weights_and_where_they_are_from(best: Path) -> None:
    before = load(best)
    weights = {key: value + 1 for key, value in before["ema"]["model"].items()}
    change(best, ema={"model": weights, "updates": 0})
    found = load_trained(best.parent)
    assert not found.network.training
    assert (found.checkpoint, found.step, found.config.model["channels"]) == ("best.pt", 3, 16)
    state = found.network.state_dict()
    assert state.keys() == before["model"].keys()
    for key, value in before["model"].items():
        assert torch.equal(state[key], value + 1)


def test_load_trained_takes_a_folders_last_checkpoint_else_its_best(best: Path) -> None:
    assert load_trained(best.parent).checkpoint == "best.pt"
    save_run(best.parent, step=9, name="last.pt")
    assert load_trained(best.parent).step == 9
    assert load_trained(best).step == 3


class Evil:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_checkpoint_cannot_run_code(best: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    contents = [pack(load(best) | {"values": Evil(mark)}), pickle.dumps(Evil(mark), protocol=2)]
    for content in contents:
        best.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or is not a checkpoint"):
            load_trained(best)
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, torch.zeros(3)])
def test_file_of_something_else_is_refused(best: Path, content: Any) -> None:
    write(best, pack(content))
    with pytest.raises(CheckpointError, match=r"best\.pt is not a checkpoint of this project"):
        load_trained(best)


FIT = "does not fit this version's network"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": ""}, f"{FIT}.*there is no network"),
        ({"network": 3}, FIT),
        ({"network": "os:system"}, f"{FIT}.*there is no network"),
        ({"network": "abl3.mbs_net:Absent"}, f"{FIT}.*there is no network"),
        ({"network": "real_mamba_optimized:MambaBlock"}, f"{FIT}.*there is no network"),
        ({"network": "bsbimamba.network.net:BandSplitNet"}, f"{FIT}.*there is no network"),
        ({"network": "abl1.mbs_net:MBSNet"}, f"{FIT}.*Unexpected key"),
        ({"config": "not JSON"}, "not a configuration of this version"),
        ({"config": json.dumps({"sed": 1})}, "unknown setting 'sed'; did you mean seed"),
        ({"config": json.dumps({"model.chanels": 16})}, "unknown setting 'model.chanels'"),
        ({"config": json.dumps({"model.channels": 24})}, "size mismatch"),
        ({"config": json.dumps({"model.channels": 0})}, FIT),
        ({"ema": {"updates": 3}}, FIT),
        ({"ema": {"model": {}}}, FIT),
        ({"values": 3}, FIT),
        ({"values": {"step": "three"}}, FIT),
    ],
)
def test_checkpoint_of_another_make_is_refused(
    best: Path, changes: dict[str, Any], reason: str
) -> None:
    change(best, **changes)
    with pytest.raises(CheckpointError, match=f"(?s)best.pt.*{reason}"):
        load_trained(best)


@pytest.mark.parametrize("place", ["models/evil", "runs", "abl3/deep", ""])
def test_nothing_but_networks_is_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model from elsewhere, put where models are, brings no code along."""
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(trained, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = ".".join([*Path(place).parts, "payload"])
    with pytest.raises(ConfigError, match="there is no network"):
        trained.network_with(f"{name}:Net", Config(), {})
    assert not (tmp_path / "ran").exists()
