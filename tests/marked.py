"""Commands that a test starts and interrupts; processes, found by a mark that they inherit."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen


@contextmanager
def started(
    words: list[str], mark: dict[str, str], cwd: Path | None = None
) -> Iterator[Popen[str]]:
    """A command as in a terminal of its own, all that it says kept."""
    # Whoever runs the tests in the background has them ignore Ctrl-C, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Popen(
        words,
        cwd=cwd,
        env=os.environ | mark,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process


def new_mark() -> dict[str, str]:
    """A variable for the environment of a process."""
    return {"MARK": uuid.uuid4().hex}


def alive(mark: dict[str, str]) -> set[int]:
    """The processes that have a mark in their environment, which workers inherit."""
    ((name, value),) = mark.items()
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{name}={value}".encode() in path.read_bytes():  # of one that has ended: empty
                found.add(int(path.parent.name))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def has_loaded(process: int, library: str) -> bool:
    try:
        return library in Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False


def assert_none_left(mark: dict[str, str]) -> None:
    """The server that starts workers ends a moment later than its client."""
    for _ in range(100):
        if not alive(mark):
            return
        time.sleep(0.1)
    assert not alive(mark)
