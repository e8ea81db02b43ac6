"""Notices that another process of a run has failed, died or hung, and ends this one.

A process that waits for another in a collective operation would do so for hours.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch may have been built without it
    from torch.distributed import Store

_BEAT = 1.0  # s, between signs of life
_SILENCE = 30.0  # s without one, after which a process counts as gone
_DOUBT = 10.0  # s of it, where a collective operation has failed
_GRACE = 5.0  # s for the main thread to end by itself, with what it knows


class Watch:
    """A thread that gives signs of life, and looks for those of the next rank.

    Every process watches one other, so that all are watched at little cost; what one notices, or
    reports of itself, all read.

    Args:
        store: a connection that nothing else uses.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._next = store, rank, (rank + 1) % size
        self._over = threading.Event()
        self._reason = ""
        self._doubts, self._noticed = threading.Event(), threading.Event()
        self._answered = time.monotonic()
        for thread in (self._run, self._wait_for_answers):
            threading.Thread(target=thread, daemon=True).start()

    def report(self, error: BaseException) -> None:
        """This process ends by an error: tell the others."""
        text = " ".join(str(error).split()) or type(error).__name__
        with suppress(RuntimeError):  # who has the store may be gone, which the others notice
            self._tell(f"rank {self._rank} has stopped: {text}")
        self._over.set()

    def why(self) -> str:
        """Return why another process counts as gone, or "" if all give signs of life.

        Called when a collective operation has failed. It takes up to 15 s.
        """
        self._doubts.set()
        self._noticed.wait(_DOUBT + _GRACE)
        return self._reason

    def end(self) -> None:
        """This process and all others are done."""
        self._over.set()

    def _run(self) -> None:
        beats, seen, since = 0, b"", time.monotonic()
        while not self._over.wait(_BEAT):
            beats += 1
            try:
                self._store.set(f"beat {self._rank}", str(beats))
                if self._store.check(["failure"]):
                    self._stop(self._store.get("failure").decode())
                if self._doubts.is_set():
                    self._store.set("doubt", "")
                silence = _DOUBT if self._store.check(["doubt"]) else _SILENCE
                key = f"beat {self._next}"
                beat = self._store.get(key) if self._store.check([key]) else b""
                self._answered = time.monotonic()
                if beat != seen:
                    seen, since = beat, self._answered
                elif self._answered - since > silence:
                    self._tell(f"rank {self._next} has given no sign of life for {silence:.0f} s")
            except RuntimeError:
                self._stop("the process that all are connected to is gone")
                return

    def _wait_for_answers(self) -> None:
        """The store itself may be in a process that hangs, and a question to it then waits."""
        while not self._over.wait(_BEAT):
            if time.monotonic() - self._answered > _SILENCE:
                self._stop(f"the process that all are connected to is silent for {_SILENCE:.0f} s")
                return

    def _tell(self, text: str) -> None:
        """Leave a failure for all to read, unless there is one: the first is the cause."""
        self._store.compare_set("failure", "", text)

    def _stop(self, reason: str) -> None:
        self._reason = reason
        self._noticed.set()
        if self._over.wait(_GRACE):
            return
        print(
            f"train.py (rank {self._rank}): stops too, since {reason}\n"
            "What is saved is from before. The same command goes on from there.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
