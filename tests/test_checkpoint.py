"""Checkpoint files, torn, flipped and on full disks, and which of them a run goes on from."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from abl1.mbs_net import MBSNet
from training.checkpoint import CheckpointError, DamagedError, Keeper, pack, read, unpack, write
from training.config import Config

STATE = {"ema": {"x": torch.arange(50.0)}, "values": {"step": 3}, "network": "n", "config": "{}"}


def state(step: int) -> dict[str, Any]:
    return {**STATE, "values": {"step": step}}


def step_of(path: Path) -> int:
    return unpack(read(path), path)["values"]["step"]


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path, MBSNet, Config(), "data")


# The file


def test_what_is_packed_is_read_by_everyone(tmp_path: Path):
    path = tmp_path / "x.pt"
    write(path, pack(STATE))
    assert torch.equal(unpack(read(path), path)["ema"]["x"], STATE["ema"]["x"])
    assert torch.equal(torch.load(path, weights_only=True)["ema"]["x"], STATE["ema"]["x"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject):
    content = bytearray(pack(STATE))
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    with pytest.raises(DamagedError, match=r"x\.pt is damaged"):
        unpack(bytes(content), Path("x.pt"))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_torn_file_is_noticed(data: st.DataObject):
    content = pack(STATE)
    kept = data.draw(st.integers(0, len(content) - 1))
    for torn in (content[:kept], content[:kept] + bytes(len(content) - kept)):
        if torn != content:
            with pytest.raises(DamagedError, match=r"x\.pt is damaged"):
                unpack(torn, Path("x.pt"))


# Which one is gone on from


def test_the_last_two_are_kept(keeper: Keeper, tmp_path: Path):
    assert keeper.load() is None
    for step in (1, 2, 3):
        keeper.save(state(step))
    assert (step_of(keeper.last), step_of(keeper.previous)) == (3, 2)
    keeper.save(state(4), best=True)
    assert (step_of(keeper.last), step_of(keeper.previous), step_of(keeper.best)) == (3, 2, 4)
    found = keeper.load()
    assert found is not None
    assert found[0] == keeper.last
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


@pytest.mark.parametrize("fault", ["flipped", "torn", "empty", "gone"])
def test_the_one_before_takes_the_place_of_a_damaged_one(
    fault: str, keeper: Keeper, caplog: pytest.LogCaptureFixture
):
    for step in (1, 2):
        keeper.save(state(step))
    content = bytearray(keeper.last.read_bytes())
    if fault == "gone":
        keeper.last.unlink()
    else:
        content[len(content) // 2] ^= 16
        kept = {"flipped": len(content), "torn": 1000, "empty": 0}[fault]
        keeper.last.write_bytes(content[:kept])
    found = keeper.load()
    assert found is not None
    path, whole = found
    assert path == keeper.previous
    assert unpack(whole, path)["values"]["step"] == 1
    keeper.settle(path)
    assert "going on from the checkpoint before it" in caplog.text
    assert step_of(keeper.last) == 1
    if fault != "gone":
        assert keeper.last.with_name("damaged.pt").read_bytes() == content[:kept]
    keeper.save(state(5))
    assert (step_of(keeper.last), step_of(keeper.previous)) == (5, 1)


def test_two_damaged_ones_are_told_of(keeper: Keeper):
    for step in (1, 2):
        keeper.save(state(step))
    for path in (keeper.last, keeper.previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"(?s)last\.pt is.*previous\.pt is.*--fresh"):
        keeper.load()


def test_the_one_to_go_back_to_is_the_one_that_was_marked(keeper: Keeper):
    for step in (1, 2, 3, 4):
        keeper.save(state(step))
        if step == 2:
            keeper.mark_good()
    places = [keeper.load(), keeper.load(good=True)]
    assert [place and place[0] for place in places] == [keeper.last, keeper.good]
    assert step_of(keeper.good) == 2
    keeper.mark_good()
    assert step_of(keeper.good) == 4
    keeper.save(state(5))
    assert [step_of(path) for path in (keeper.last, keeper.previous, keeper.good)] == [5, 4, 4]
    keeper.good.write_bytes(b"torn")
    found = keeper.load(good=True)
    assert found is not None
    assert found[0] == keeper.last


def test_full_disk_costs_neither_of_the_two(keeper: Keeper, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (1, 2):
        keeper.save(state(step))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        keeper.save(state(3))
    assert (step_of(keeper.last), step_of(keeper.previous)) == (2, 1)


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flush(handle: int) -> None:
        done.append(f"flush {os.path.basename(os.readlink(f'/proc/self/fd/{handle}'))[-8:]}")
        fsync(handle)

    def rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    write(tmp_path / "last.pt", pack(STATE))
    assert done == ["flush .partial", "rename"]


# Disks that are full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(small_disk: Path):
    keeper = Keeper(small_disk, MBSNet, Config(), "data")
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(50_000).astype(np.float32))
    keeper.save({**state(1), "ema": {"x": noise}})
    growing = ({**state(step), "ema": {"x": noise.repeat(step)}} for step in range(2, 9))
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be written: No space left"):
        list(map(keeper.save, growing))
    for path in (keeper.last, keeper.previous):
        assert step_of(path) in range(1, 8)
    assert sorted(p.name for p in small_disk.iterdir()) == ["last.pt", "previous.pt"]


def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path):
    """With a limit on the size of files, in a process of its own: a real failing write."""
    write(tmp_path / "last.pt", pack(STATE))
    code = f"""
        import resource, signal, sys, torch
        from pathlib import Path
        from training.checkpoint import CheckpointError, pack, write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write(Path({os.fspath(tmp_path)!r}) / "last.pt", pack({{"x": torch.zeros(10**6)}}))
        except CheckpointError as error:
            print(error)
            sys.exit(7)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    assert "last.pt cannot be written: File too large" in result.stdout
    assert step_of(tmp_path / "last.pt") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]
