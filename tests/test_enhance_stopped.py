"""Enhancing, interrupted: it ends at once, and nothing is left half-written."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from enhance_command import RATE, command, files, put
from marked import alive, assert_none_left, new_mark, started
from recordings import sound


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing_half_written(
    run: Path, tmp_path: Path, jobs: int, number: int
) -> None:
    """In the middle of files of minutes, each: at once, and what is done is kept.

    Others wait for the workers, and it is not the repository that the command is given in.
    """
    put(tmp_path / "in" / "0.wav")
    for name in ("1.wav", "2.wav", "3.wav", "4.wav", "5.wav"):
        sf.write(tmp_path / "in" / name, np.tile(sound(10), 120), RATE)
    mark = new_mark()
    out = tmp_path / "out"
    words = command(run, tmp_path / "in", "-o", out, "--jobs", jobs)
    with started(words, mark, cwd=tmp_path) as process:
        while len(list(out.glob(".*.partial"))) < jobs or not (out / "0.wav").exists():
            assert process.poll() is None
            time.sleep(0.02)
        began = time.monotonic()
        os.killpg(process.pid, number)
        output, message = process.communicate(timeout=60)
        assert time.monotonic() - began < 20  # minutes would be left to do
    assert (process.returncode, output) == (130, "")
    assert message == "enhance.py: interrupted; the same command goes on from here\n"
    assert files(out) == ["0.wav"]
    assert_none_left(mark)
    assert not alive(mark)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at processes in /proc")
def test_a_worker_without_work_ends_without_a_word(run: Path, tmp_path: Path) -> None:
    """One of two processes has nothing left to do when all is interrupted."""
    put(tmp_path / "in" / "0.wav")
    sf.write(tmp_path / "in" / "1.wav", np.tile(sound(10), 120), RATE)
    out = tmp_path / "out"
    with started(command(run, tmp_path / "in", "-o", out, "--jobs", 2), new_mark()) as process:
        while not ((out / "0.wav").exists() and list(out.glob(".*.partial"))):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        message = process.communicate(timeout=60)[1]
    assert message == "enhance.py: interrupted; the same command goes on from here\n"
