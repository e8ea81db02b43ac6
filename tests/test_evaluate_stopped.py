"""The scoring command, interrupted: it ends at once, keeps what it has, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from conftest import ROOT


def alive(mark: str) -> set[int]:
    """The processes that have `mark` in their environment, which workers inherit."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():  # that of one that has ended is empty
                found.add(int(path.parent.name))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def is_scoring(process: int) -> bool:
    try:
        return "cypesq" in Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False


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
    mark = f"MARK={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    # Whoever runs the tests in the background has them ignore Ctrl-C, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        words,
        env={**os.environ, name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not any(is_scoring(each) for each in alive(mark) - {process.pid}):
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
    for _ in range(100):  # the server that starts workers ends a moment later than its client
        if not alive(mark):
            break
        time.sleep(0.1)
    assert not alive(mark)
