"""Stopping a run from outside, between two steps."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from data.signals import STOP_SIGNALS

log = logging.getLogger("training")

# "Try again later", of sysexits.h. A scheduler can put a job back that ends with it.
STOPPED = 75
# One Ctrl-C may arrive twice, from the terminal and from a launcher that passes it on.
_SAME = 1.0  # s


class Interrupted(BaseException):
    """A signal to stop came while there was nothing to save."""


@contextmanager
def stop_on_signal(deadline: float = math.inf) -> Iterator[Callable[[], bool]]:
    """Within it, Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP makes the yielded function true.

    So does the time, by `time.monotonic()`, from `deadline` on.

    A second Ctrl-C, a second later or more, raises KeyboardInterrupt. Schedulers and launchers
    repeat the others; that changes nothing.
    """
    first: list[float] = []

    def note(number: int, frame: Any) -> None:
        if not first:
            first.append(time.monotonic())
            log.warning("stopping after this step; Ctrl-C (again) to stop at once, without saving")
        elif number == signal.SIGINT and time.monotonic() - first[0] > _SAME:
            raise KeyboardInterrupt

    with _handled_by(note):
        yield lambda: bool(first) or time.monotonic() >= deadline


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within it, the same signals raise Interrupted."""

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(signal.Signals(number).name)

    with _handled_by(stop):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    hangup = getattr(signal, "SIGHUP", None)
    previous = {
        number: signal.signal(number, handler)
        for number in STOP_SIGNALS
        if number != hangup or signal.getsignal(number) != signal.SIG_IGN  # as `nohup` has it
    }
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
