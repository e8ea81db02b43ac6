"""What may set back or end a run: numbers that are not finite, and signals to stop."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from data.workers import STOP_SIGNALS
from training.config import Optim

log = logging.getLogger("training")

_SAME = 1.0  # s; one Ctrl-C may arrive twice, from the terminal and from a launcher
_REMEMBERED = 50  # skipped steps that a report looks at


class Health:
    """Counts steps that were skipped because a number was not finite. A part of the run's state.

    Attributes:
        skipped: in all. in_a_row: since the last step that was taken.
        rollbacks: how often the run has gone back to its last good state.
    """

    def __init__(self, optim: Optim) -> None:
        self._optim = optim
        self.skipped = self.in_a_row = self.rollbacks = 0
        self._recent: list[tuple[str, list[str]]] = []  # what to say, and its files

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

    def skip(self, step: int, broken: Mapping[str, float], names: Sequence[str]) -> str:
        """Count a step that was skipped for these values of a batch of files; describe it."""
        self.skipped += 1
        self.in_a_row += 1
        values = ", ".join(f"{name} {value}" for name, value in broken.items())
        text = f"step {step}: {values} in a batch of {', '.join(names)}"
        self._recent = [*self._recent, (text, list(names))][-_REMEMBERED:]
        return text

    def report(self) -> str:
        """Return what is known of the skipped steps, for whoever has to find the cause."""
        counts = Counter(name for _, names in self._recent for name in names)
        often = ", ".join(f"{name} ({n} times)" for name, n in counts.most_common(5) if n > 1)
        last = "\n".join(f"  {text}" for text, _ in self._recent[-5:])
        return (
            f"{self.skipped} steps were skipped for a loss or gradient that is not finite, the "
            f"last {self.in_a_row} in a row; the run went back {self.rollbacks} times, to a "
            f"learning rate {self.rate_factor:g} times that of the settings.\n"
            f"The last of them:\n{last}\n"
            f"Files that were in several of them: {often or 'none'}.\n"
            "If the same files come back, look at them. If not, training diverges: try a smaller "
            "--optim.learning-rate or --optim.clip-ratio, or --amp bf16 or off."
        )

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("skipped", "in_a_row", "rollbacks")}
        return {**counts, "recent": [[text, list(names)] for text, names in self._recent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("skipped", "in_a_row", "rollbacks"):
            setattr(self, name, int(state[name]))
        self._recent = [(str(text), list(map(str, names))) for text, names in state["recent"]]


@contextmanager
def signals_handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Within it, Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP (but under nohup) call the handler."""
    previous = {
        number: signal.signal(number, handler)
        for number in STOP_SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def stop_on_signal(deadline: float = math.inf) -> Iterator[Callable[[], bool]]:
    """Within it, a signal to stop makes the yielded function true, and so does the deadline.

    A second Ctrl-C, a second later or more, raises KeyboardInterrupt. Schedulers and launchers
    repeat the other signals; that changes nothing.

    deadline: by `time.monotonic()`.
    """
    first: list[float] = []

    def note(number: int, frame: Any) -> None:
        if not first:
            first.append(time.monotonic())
            log.warning("stopping after this step; Ctrl-C (again) to stop at once, without saving")
        elif number == signal.SIGINT and time.monotonic() - first[0] > _SAME:
            raise KeyboardInterrupt

    with signals_handled_by(note):
        yield lambda: bool(first) or time.monotonic() >= deadline
