"""Faults that happen to real runs: after each, the same command ends with the same weights."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from faults import (
    assert_as_undisturbed,
    command,
    step_of,
    train,
    training,
    wait_for_partial,
    wait_for_step,
    wait_for_writes,
)
from recordings import put_corpus
from saved_runs import load

from data.audio import read, write
from data.corpus import pair_folders


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus of its own for each test: files of it are spoilt."""
    return put_corpus(tmp_path / "corpus", test=0)


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
            name = Path(f"/proc/{process}/comm").read_text().strip()
            found[process] = "loader" if name == "pt_data_worker" else "pesq"
    return found


@pytest.mark.slow
def test_no_shared_memory(corpus: Path, tmp_path: Path) -> None:
    """A message, and an end."""
    inner = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec " + shlex.join(
        command(corpus, tmp_path / "run", "--steps", "3")
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
    assert "skipped step" in said
    assert path.stem in said
    state = load(run / "last.pt")
    assert state["health"]["skipped"] >= 1
    assert all(x.isfinite().all() for x in state["model"].values())
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
        assert "is in use by another process" in said
        said = subprocess.run(
            command(corpus, run, "--fresh"), capture_output=True, text=True, check=False
        ).stderr
        assert "is in use by another process" in said
        wait_for_step(process, run, step_of(run) + 2)
    assert_as_undisturbed(corpus, run, tmp_path / "whole")


@pytest.mark.slow
def test_nobody_listens(corpus: Path, tmp_path: Path) -> None:
    """The terminal is gone: the run goes on, and ends well."""
    process = subprocess.Popen(
        command(corpus, tmp_path / "run", "--steps", "4"), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert step_of(tmp_path / "run") == 4
    closed = shlex.join(command(corpus, tmp_path / "run", "--steps", "5")) + " >&- 2>&-"
    subprocess.run(["sh", "-c", closed], check=True)
    assert step_of(tmp_path / "run") == 5
