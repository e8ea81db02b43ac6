"""When one of several processes is gone, torchrun ends the others; the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import command, put_corpus, train
from saved_runs import assert_same_state, load

# Without a fall of the rate, a run takes the same steps whatever its length.
LONG = ["--run.save_minutes=0", "--optim.epochs=60", "--optim.fall=0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_corpus(tmp_path_factory.mktemp("pairs"))


def workers_of(launcher: int) -> dict[int, int]:
    """The training processes that a launcher has started, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(entry.joinpath("stat").read_text().rpartition(") ")[2].split()[1])
            environment = entry.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [int(v[5:]) for v in environment if v.startswith(b"RANK=")]
        if parent == launcher and ranks:
            found[ranks[0]] = int(entry.name)
    return found


def wait_for_steps(process: subprocess.Popen, run: Path, steps: int) -> None:
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count('"train"') >= steps):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_rank_ends_the_job(rank: int, corpus: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    launcher = subprocess.Popen(command(corpus, run, 2, *LONG), stderr=subprocess.PIPE, text=True)
    with launcher:
        wait_for_steps(launcher, run, 3)
        began = time.monotonic()
        os.kill(workers_of(launcher.pid)[rank], signal.SIGKILL)
        launcher.communicate(timeout=60)
        assert time.monotonic() - began < 60
    assert launcher.returncode != 0
    step = load(run / "last.pt")["values"]["step"]
    for folder in (run, whole):
        train(corpus, folder, 2, *LONG, "--steps", str(step + 2))
    assert_same_state(whole, run)


@pytest.mark.slow
def test_signal_to_torchrun_saves(corpus: Path, tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        command(corpus, tmp_path, 2, *LONG), stderr=subprocess.PIPE, text=True
    )
    with launcher:
        wait_for_steps(launcher, tmp_path, 3)
        launcher.send_signal(signal.SIGTERM)
        errors = launcher.communicate(timeout=60)[1]
    assert "stopping after this step" in errors
    assert load(tmp_path / "last.pt")["values"]["step"] >= 3
