"""The scoring command, interrupted: it ends at once, keeps what it has, and leaves no process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from marked import alive, assert_none_left, has_loaded, new_mark, started


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-c twice", "terminate"])
def test_interrupted_scoring_ends_at_once_and_leaves_nothing(
    how: str, tmp_path: Path, tiny_corpus: Path
):
    """Of files for minutes, those that are being scored are waited for."""
    source = next((tiny_corpus / "test" / "clean").iterdir())
    for number in range(400):
        (tmp_path / f"{number}.wav").symlink_to(source)
    words = [sys.executable, str(ROOT / "evaluate.py"), "--clean", str(tmp_path)]
    words += ["--enhanced", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "1"]
    mark = new_mark()
    with started(words, mark) as process:
        while not any(has_loaded(each, "cypesq") for each in alive(mark) - {process.pid}):
            assert process.poll() is None
            time.sleep(0.05)
        if how == "terminate":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        if how == "ctrl-c twice":
            time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
        output, message = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    if how != "ctrl-c twice":
        assert message == "evaluate.py: interrupted\n"
        assert os.listdir(tmp_path / "out") == ["per_file.csv"]  # what has been scored is kept
    assert_none_left(mark)
