"""Faults that really happen to real runs: after each, the same command ends with the same weights.

All of one narrow network that saves after every step, has three steps an epoch and its adversary
and PESQ workers from the first.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from saved_runs import load
from test_distributed import assert_same_state, tensors

from data.audio import read, write
from data.corpus import pair_folders
from data.synthesise import ensure
from training.checkpoint import CheckpointError

OPTIONS = [
    *("--batch-size", "2", "--crop", "0.5", "--workers", "1", "--epochs", "400"),
    *("--set", "model.channels=16", "run.log_every=1", "run.save_minutes=0"),
    *("data.validation_seconds=1", "run.pesq_workers=1"),
]


def command(corpus: Path, run: Path, *options: str) -> list[str]:
    script = str(ROOT / "abl1" / "train.py")
    return [sys.executable, script, "--data", str(corpus), "--run", str(run), *OPTIONS, *options]


def train(corpus: Path, run: Path, steps: int, status: int = 0) -> str:
    """Run the command up to a step; what it says."""
    result = subprocess.run(
        command(corpus, run, "--max-steps", str(steps)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@contextmanager
def training(corpus: Path, run: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in the background, from when it is about to take its first step."""
    process = subprocess.Popen(
        command(corpus, run, *options), stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "at step" in line:
                break
        else:
            pytest.fail(said)
        os.set_blocking(process.stderr.fileno(), False)
        yield process
    finally:
        process.kill()
        process.communicate()


def step_of(run: Path) -> int:
    return load(run / "last.pt")["values"]["step"]


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not ((run / "last.pt").is_file() and step_of(run) >= step):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_writes(process: subprocess.Popen[str], run: Path, count: int) -> None:
    """Wait until last.pt has been written some times more."""
    stamps: set[int] = set()
    deadline = time.monotonic() + 120
    while len(stamps) <= count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        if (run / "last.pt").is_file():
            stamps.add((run / "last.pt").stat().st_mtime_ns)
        time.sleep(0.005)


def wait_for_partial(run: Path, allowed: tuple[str, ...]) -> None:
    """Wait for a half-written file, of which those that only get another name may not count."""
    deadline = time.monotonic() + 60
    while True:
        for name in os.listdir(run):
            renamed = name.startswith((".previous", ".good"))
            if name.endswith(".partial") and (not renamed or name.startswith(allowed or "-")):
                return
        assert time.monotonic() < deadline


def assert_as_undisturbed(corpus: Path, run: Path, whole: Path) -> None:
    """One more step, and all tensors of the state are those of a run that nothing happened to."""
    steps = step_of(run) + 1
    train(corpus, run, steps)
    train(corpus, whole, steps)
    assert_same_state(whole, run)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus of its own for each test: files of it are spoilt."""
    return ensure(tmp_path / "corpus", train=6, valid=2, test=0, workers=1)


# Killed


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["any", "writing"])
def test_killed_again_and_again(moment: str, corpus: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(moment)
    kills, torn = 20, 0
    for number in range(kills):
        with training(corpus, run) as process:
            if moment == "writing" or number % 2:  # the others often die before their first step
                wait_for_writes(process, run, rng.randint(2, 8))
            if moment == "writing":
                # Every other time while a second name is given to the old one, just before.
                named = (".previous", ".good") if number % 2 else ()
                wait_for_partial(run, named)
            else:
                time.sleep(rng.uniform(0, 2.5))
            process.kill()
            process.wait()
        torn += any(run.glob(".*.partial"))
        for path in (run / "last.pt", run / "previous.pt"):
            if path.is_file():
                load(path)  # none of them is ever torn
    if moment == "writing":  # most; the others between two files, or right after one
        assert torn >= kills // 4
    print(f"\n{kills} kills ({moment}), {torn} of them in a write; now at step {step_of(run)}")
    assert step_of(run) >= kills
    assert_as_undisturbed(corpus, run, tmp_path / "whole")
    assert not any(run.glob(".*.partial"))


@pytest.mark.slow
def test_killed_workers(corpus: Path, tmp_path: Path) -> None:
    """Of both kinds, in turn, in one run that goes on all the time."""
    run = tmp_path / "run"
    killed = {"loader": 0, "pesq": 0}
    with training(corpus, run) as process:
        for number in range(10):
            wait_for_step(process, run, 3 * number + 2)
            kind = "loader" if number % 2 else "pesq"
            victims = [p for p, k in workers_below(process.pid).items() if k == kind]
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
                killed[kind] += 1
        wait_for_step(process, run, step_of(run) + 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    print(f"\nkilled: {killed}")
    assert min(killed.values()) >= 5
    assert_as_undisturbed(corpus, run, tmp_path / "whole")


def workers_below(parent: int) -> dict[int, str]:
    """The worker processes of a training process, and what they are for."""
    parents, found = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = entry.joinpath("stat").read_text().rpartition(") ")[2].split()
            parents[int(entry.name)] = int(fields[1])
        except OSError:
            continue
    for process, server in parents.items():
        if parents.get(server) == parent:
            with open(f"/proc/{process}/maps") as maps:
                text = maps.read()
            if "libtorch" in text:
                found[process] = "loader"
            elif "pesq" in text:
                found[process] = "pesq"
    return found


# Damaged


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
        with training(corpus, disk / "run", "--set", "run.save_minutes=9") as process:
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


@pytest.mark.slow
def test_no_shared_memory(corpus: Path, tmp_path: Path) -> None:
    """A message, and an end."""
    inner = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec " + shlex.join(
        command(corpus, tmp_path / "run", "--max-steps", "3")
    )
    try:
        result = subprocess.run(
            ["unshare", "-m", "sh", "-c", inner], capture_output=True, text=True, timeout=90,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if "permission" in result.stderr.lower():
        pytest.skip("a file system cannot be mounted here (needs root)")
    assert result.returncode in (1, 2)
    assert "--workers 0 needs none" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_audio_that_goes_bad_while_it_is_used(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folders = pair_folders(corpus, "train")
    assert folders is not None
    path = sorted(folders[1].glob("*"))[2]
    whole = path.read_bytes()
    with training(corpus, run) as process:
        wait_for_step(process, run, 2)
        write(path.with_suffix(".new.wav"), np.full_like(read(path), np.nan), "FLOAT")
        path.with_suffix(".new.wav").replace(path)
        wait_for_step(process, run, step_of(run) + 7)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 75
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), True)
        said = process.stderr.read()
    assert "left out step" in said
    assert path.stem in said
    state = load(run / "last.pt")
    assert state["health"]["skipped"] >= 1
    assert all(x.isfinite().all() for x in tensors(state["model"]).values())
    said = train(corpus, run, step_of(run) + 3, status=2)
    assert f"{path.name}: has NaN or infinite samples" in said
    path.write_bytes(whole)
    train(corpus, run, step_of(run) + 3)


# Two at once, and nobody who listens


@pytest.mark.slow
def test_a_second_process_is_refused(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with training(corpus, run) as process:
        wait_for_step(process, run, 1)
        said = train(corpus, run, 3, status=2)
        assert f"is in use by process {process.pid}" in said
        said = subprocess.run(
            command(corpus, run, "--fresh"), capture_output=True, text=True, check=False
        ).stderr
        assert f"is in use by process {process.pid}" in said
        wait_for_step(process, run, step_of(run) + 2)
    said = train(corpus, run, step_of(run) + 1)
    assert f"ended without notice (process {process.pid} on" in said
    assert_as_undisturbed(corpus, run, tmp_path / "whole")


def test_nobody_listens(corpus: Path, tmp_path: Path) -> None:
    """The terminal is gone: the run goes on, and ends well."""
    process = subprocess.Popen(
        command(corpus, tmp_path / "run", "--max-steps", "4"), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert step_of(tmp_path / "run") == 4
    closed = shlex.join(command(corpus, tmp_path / "run", "--max-steps", "5")) + " >&- 2>&-"
    subprocess.run(["sh", "-c", closed], check=True)
    assert step_of(tmp_path / "run") == 5
