"""`data.utils`: files that are written whole or not at all, folders that are held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from data.utils import DataError, hold, remove_partials, replacing, write_text
from data.workers import variable


def test_replacing_writes_a_file_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "first \udcff\n")
    assert path.read_bytes() == b"first \\udcff\n"
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text(None)  # type: ignore[arg-type]
    assert path.read_bytes() == b"first \\udcff\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_remove_partials_leaves_the_files_of_others(tmp_path: Path):
    for name in (f".{'a' * 32}.partial", ".last.pt.partial", "mine.partial", ".x.partial"):
        (tmp_path / name).touch()
    remove_partials(tmp_path, older_than=60)
    assert len(os.listdir(tmp_path)) == 4
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".x.partial", "mine.partial"]


def test_hold_refuses_a_second_process_until_the_first_is_gone(tmp_path: Path):
    left, being_written = (tmp_path / f".{digit * 32}.partial" for digit in "ab")
    left.touch()
    code = (
        "import sys, time; from pathlib import Path; from data.utils import hold;"
        "lock = hold(Path(sys.argv[1]), 'wait'); print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert not left.exists()
        being_written.touch()
        with pytest.raises(DataError, match=r"is in use by another process.* or name another\.$"):
            hold(tmp_path, "name another")
        assert being_written.exists()  # the other may be writing it
        other.send_signal(signal.SIGKILL)
    lock = hold(tmp_path, "name another")
    assert not being_written.exists()
    with pytest.raises(DataError):
        hold(tmp_path, "name another")
    lock.release()
    hold(tmp_path, "name another").release()


def test_variable_is_restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BSBIMAMBA_A", "1")
    with variable("BSBIMAMBA_A", None), variable("BSBIMAMBA_B", "2"):
        assert "BSBIMAMBA_A" not in os.environ
        assert os.environ["BSBIMAMBA_B"] == "2"
    assert os.environ["BSBIMAMBA_A"] == "1"
    assert "BSBIMAMBA_B" not in os.environ
