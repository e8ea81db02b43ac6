"""Stopping a run from outside, between two steps."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("training")


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Within it, Ctrl-C or SIGTERM makes the yielded function true; a second one interrupts."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("stopping after this step; once more to stop at once, without saving")

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
