"""How commands end: with a status and a message, whatever they are printed to."""

from __future__ import annotations

import io
import os
import sys

import pytest

from data.utils import DataError, FailedError, carry_out, say, show


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("bad file"), 2, "x: bad file\n"),
        (FailedError("no room"), 1, "x: no room\n"),
        (OSError(28, "No space left on device", "/a/b"), 1, "x: /a/b: No space left on device\n"),
        (OSError("odd"), 1, "x: the system: odd\n"),
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
