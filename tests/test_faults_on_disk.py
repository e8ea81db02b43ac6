"""Damaged checkpoints, full disks, folders that go: the same command goes on, or says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from faults import assert_as_undisturbed, step_of, train, training, wait_for_step
from recordings import put_corpus
from saved_runs import load

from training.checkpoint import CheckpointError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus of its own for each test: files of it are spoilt."""
    return put_corpus(tmp_path / "corpus", test=0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", "flipped", "removed"])
def test_a_damaged_checkpoint(fault: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(corpus, run, 5)
    last, before = run / "last.pt", step_of(run)
    content = bytearray(last.read_bytes())
    content[len(content) // 3] ^= 1
    last.write_bytes(content[: len(content) // 2] if fault == "cut" else content)
    if fault == "removed":
        last.unlink()
    said = train(corpus, run, before)
    assert "going on from the checkpoint before it" in said
    assert f"at step {before - 1}" in said
    assert_as_undisturbed(corpus, run, tmp_path / "whole")


@pytest.mark.slow
def test_two_damaged_checkpoints_are_refused(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", 3)
    for name in ("last.pt", "previous.pt"):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:-7])
    said = train(corpus, tmp_path / "run", 5, status=2)
    assert "previous.pt is damaged" in said
    assert "start anew with --fresh" in said
    with pytest.raises(CheckpointError):
        load(tmp_path / "run" / "last.pt")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1m", "3m", "5m"])
def test_a_full_disk(size: str, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(run)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        said = train(corpus, run, 200, status=1)
        assert "No space left on device" in said
        if (run / "last.pt").is_file():
            load(run / "last.pt")
        subprocess.run(["mount", "-o", "remount,size=200m", str(run)], check=True)
        train(corpus, run, 7)
        print(f"\nfull at {size}; gone on to step {step_of(run)}")
        assert_as_undisturbed(corpus, run, tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(run)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "gone"])
def test_a_disk_that_fills_or_goes_between_two_checkpoints(
    fault: str, corpus: Path, tmp_path: Path
) -> None:
    """So that the log, not a checkpoint, is what cannot be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        with training(corpus, disk / "run", "--run.save_minutes=9") as process:
            wait_for_step(process, disk / "run", 3)
            if fault == "gone":
                shutil.rmtree(disk / "run")
            else:
                with (disk / "fill").open("wb", buffering=0) as file, suppress(OSError):
                    while file.write(bytes(1024)):
                        pass
            assert process.wait(timeout=60) == 1
            assert process.stderr is not None
            os.set_blocking(process.stderr.fileno(), True)
            said = process.stderr.read()
        assert "Traceback" not in said
        assert ("No space left" if fault == "full" else "No such file") in said
        if fault == "full":
            (disk / "fill").unlink()
            assert_as_undisturbed(corpus, disk / "run", tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
