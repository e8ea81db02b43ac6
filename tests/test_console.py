"""How commands end: with a status and a message, whatever they are printed to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from recordings import put_pairs

from data.console import carry_out, say, show
from data.errors import DataError, FailedError


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("bad file"), 2, "x: bad file\n"),
        (FailedError("no room"), 1, "x: no room\n"),
        (OSError(28, "No space left on device", "/a/b"), 1, "x: /a/b: No space left on device\n"),
        (OSError("odd"), 1, "x: the system: odd\n"),
        (MemoryError(), 1, "x: out of memory\n"),
        (KeyboardInterrupt(), 130, "x: interrupted\n"),
    ],
)
def test_what_goes_wrong_is_a_status_and_a_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture
):
    def work() -> int:
        raise error

    assert carry_out("x", work) == status
    assert capsys.readouterr().err == message
    assert carry_out("x", lambda: 1) == 1


def test_saying_and_showing(capsys: pytest.CaptureFixture):
    say("one")
    show("two\n")
    assert capsys.readouterr() == ("two\n", "one\n")


def _run(root: Path, redirection: str, encoding: str = "utf-8") -> subprocess.CompletedProcess:
    command = f"'{sys.executable}' -m data.manifest '{root}' {redirection}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        errors="replace",
    )


def test_odd_outputs(tmp_path: Path):
    """An encoding that lacks a letter, a pipe that nobody reads, a full disk, no stderr."""
    root = tmp_path / "ü"
    put_pairs(root, ["a_1.wav"], 0.2)
    found = _run(root, "", "ascii:strict")
    assert (found.returncode, found.stdout) == (0, f"{tmp_path}/\\xfc: 1 train pairs\n")
    assert _run(root, "| true").returncode == 0
    assert _run(root, "2>&-").returncode == 0
    if Path("/dev/full").exists():
        found = _run(root, ">/dev/full")
        assert found.returncode == 2
        assert "cannot be written: No space left on device" in found.stderr
        assert "Traceback" not in found.stderr


def test_a_pipe_that_nobody_reads_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        show("a table\n")


def test_a_name_that_standard_output_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    show("ü \udcff\n")
    assert shown.getvalue() == b"\\xfc \\udcff\n"
