"""How commands end: with a status and a message, whatever they are printed to."""

from __future__ import annotations

import io
import os
import sys

import pytest

from data.utils import DataError, FailedError, carry_out, show


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("bad file"), 2, "x: bad file\n"),
        (FailedError("no room"), 1, "x: no room\n"),
        (OSError(28, "No space left on device", "/a/b"), 1, "x: /a/b: No space left on device\n"),
        (KeyboardInterrupt(), 130, "x: interrupted\n"),
    ],
)
def test_carry_out_turns_errors_into_a_status_and_a_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture
):
    def work() -> int:
        raise error

    assert carry_out("x", work) == status
    assert capsys.readouterr().err == message


def test_show_prints_to_closed_pipes_and_ascii(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        show("a table\n")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    show("ü \udcff\n")
    assert shown.getvalue() == b"\\xfc \\udcff\n"
