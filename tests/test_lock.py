"""One process at a time in a folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from data import lock as lock_module
from data.errors import DataError
from data.lock import LOCK, Lock

OTHERWISE = "name another folder with --run"


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    code = (
        "import sys, time; from pathlib import Path; from data.lock import Lock;"
        "lock = Lock(Path(sys.argv[1]), 'wait'); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_one_that_was_killed_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    left, being_written = (tmp_path / f".{digit * 32}.partial" for digit in "ab")
    left.touch()
    other = hold(tmp_path)
    assert not left.exists()
    with other:
        being_written.touch()
        with pytest.raises(DataError, match=rf"in use by process {other.pid} on .*--run"):
            Lock(tmp_path, OTHERWISE)
        assert being_written.exists()  # the other may be writing it
        other.send_signal(signal.SIGKILL)
    lock = Lock(tmp_path, OTHERWISE)
    assert f"ended without notice (process {other.pid} on" in caplog.text
    lock.release()
    lock.release()
    caplog.clear()
    Lock(tmp_path, OTHERWISE).release()
    assert not caplog.text


@pytest.mark.parametrize(
    ("holder", "free"),
    [
        (f"process {os.getpid()} on {socket.gethostname()}", False),
        (f"process {2**22 + 5} on {socket.gethostname()}", True),
        ("process 5 on another-machine", False),
        ("", True),
    ],
    ids=("this one", "one that is gone", "another machine's", "none"),
)
def test_without_locks_of_the_system_the_text_decides(
    holder: str, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock_module, "fcntl", None)
    (tmp_path / LOCK).write_text(holder)
    if free:
        Lock(tmp_path, OTHERWISE).release()
    else:
        with pytest.raises(DataError, match=rf"in use by {holder}.*remove .*{LOCK}"):
            Lock(tmp_path, OTHERWISE)
        assert (tmp_path / LOCK).read_text() == holder
