"""What may set back or end a run: numbers that are not finite, and signals to stop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bsbimamba.data.workers import STOP_SIGNALS
from bsbimamba.training.config import Optim

log = logging.getLogger("training")

_SAME = 1.0  # s; one Ctrl-C may arrive twice, from the terminal and from a launcher


class Health:
    """Count steps that were skipped because a number was not finite. A part of the run's state.

    Attributes:
        skipped: in all. in_a_row: since the last step that was taken.
        rollbacks: how often the run has gone back to its last good state.
    """

    def __init__(self, optim: Optim) -> None:
        self._optim = optim
        self.skipped = self.in_a_row = self.rollbacks = 0

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by, after so many rollbacks."""
        return self._optim.rollback_decay**self.rollbacks

    @property
    def diverged(self) -> bool:
        """Whether so many steps were skipped in a row that the weights are to blame."""
        return self.in_a_row >= self._optim.skips_in_a_row

    @property
    def rollbacks_exhausted(self) -> bool:
        """Whether the run may not go back once more."""
        return self.rollbacks >= self._optim.rollbacks

    def skip(self) -> None:
        """Count a step that was skipped."""
        self.skipped += 1
        self.in_a_row += 1

    def roll_back(self) -> None:
        """Count that the run has gone back."""
        self.in_a_row = 0
        self.rollbacks += 1

    def report(self) -> str:
        """Return what is known of the skipped steps, and what to try."""
        return (
            f"{self.skipped} steps were skipped for a loss or gradient that is not finite, the "
            f"last {self.in_a_row} in a row; the run went back {self.rollbacks} times, to a "
            f"learning rate {self.rate_factor:g} times that of the settings. metrics.jsonl names "
            "the files of each skipped step. If the same files come back, look at them. If not, "
            "training diverges: try a smaller --optim.learning-rate or --optim.clip-ratio, or "
            "--amp bf16 or off."
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("skipped", "in_a_row", "rollbacks")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self.in_a_row, self.rollbacks = (
            int(state[name]) for name in ("skipped", "in_a_row", "rollbacks")
        )


@contextmanager
def stop_at_once(status: int) -> Iterator[None]:
    """End the process with a status on SIGTERM, SIGUSR1 or SIGHUP: there is nothing to save yet."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(status)

    with _handled(stop, [n for n in STOP_SIGNALS if n != signal.SIGINT]):
        yield


@contextmanager
def _handled(handler: Callable[[int, Any], None], numbers: Sequence[int]) -> Iterator[None]:
    """Handle signals so, but for those that are ignored (as SIGHUP under nohup)."""
    heeded = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def stop_on_signal(deadline: float = math.inf) -> Iterator[Callable[[], bool]]:
    """Yield a function that is true after SIGINT, SIGTERM, SIGUSR1 or SIGHUP, or the deadline.

    A second Ctrl-C, a second later or more, raises KeyboardInterrupt. Schedulers and launchers
    repeat the other signals; that changes nothing. A signal that is ignored (as SIGHUP under nohup)
    stays ignored.

    deadline: by `time.monotonic()`.
    """
    first: list[float] = []

    def note(number: int, frame: Any) -> None:
        if not first:
            first.append(time.monotonic())
            log.warning("stopping after this step; Ctrl-C (again) to stop at once, without saving")
        elif number == signal.SIGINT and time.monotonic() - first[0] > _SAME:
            raise KeyboardInterrupt

    with _handled(note, STOP_SIGNALS):
        yield lambda: bool(first) or time.monotonic() >= deadline
