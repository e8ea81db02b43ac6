"""A real run of train.py in tests that break things: its command, its progress, its end.

Of one narrow network that saves after every step, has three steps an epoch, and a discriminator
and PESQ workers from the first. Its rate does not fall, so that it may be told to end at any step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT
from saved_runs import assert_same_state, load

OPTIONS = [
    *("--batch-size", "2", "--crop", "0.5", "--workers", "1"),
    *("--model.channels=16", "--run.log_every=1", "--run.save_minutes=0", "--run.pesq_workers=1"),
    *("--loss.metric=0.05", "--run.validate_every=3", "--data.validation_seconds=1"),
    *("--optim.epochs=400", "--optim.fall=0"),
]


def command(corpus: Path, run: Path, *options: str) -> list[str]:
    script = str(ROOT / "abl1" / "train.py")
    return [sys.executable, script, "--data", str(corpus), "--run", str(run), *OPTIONS, *options]


def train(corpus: Path, run: Path, steps: int, status: int = 0) -> str:
    """Run the command up to a step, which its rate does not depend on; what it says."""
    result = subprocess.run(
        command(corpus, run, "--steps", str(steps)),
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


def assert_as_undisturbed(corpus: Path, run: Path, whole: Path) -> str:
    """After one more step, of which this returns what it says, the state is that of a run that
    nothing happened to."""
    steps = step_of(run) + 1
    said = train(corpus, run, steps)
    train(corpus, whole, steps)
    assert_same_state(whole, run)
    return said
