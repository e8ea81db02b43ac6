"""How often a run has met numbers that are not finite, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from training.config import Optim

_REMEMBERED = 50  # skipped steps that a report looks at


class Health:
    """Counts steps that were left out. A part of the run's state.

    skipped: in all. in_a_row: since the last one that was taken. rollbacks: how often the run has
    gone back to its last good state.
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
    def ill(self) -> bool:
        """Whether so many steps were skipped in a row that the weights are to blame."""
        return self.in_a_row >= self._optim.skips_in_a_row

    @property
    def hopeless(self) -> bool:
        """Whether it has been as often as may be."""
        return self.ill and self.rollbacks >= self._optim.rollbacks

    def taken(self) -> None:
        """A step was taken."""
        self.in_a_row = 0

    def skip(self, step: int, broken: Mapping[str, float], names: Sequence[str]) -> str:
        """A step was left out for these values of its batch of files; what to say of it."""
        self.skipped += 1
        self.in_a_row += 1
        values = ", ".join(f"{name} {value}" for name, value in broken.items())
        text = f"step {step}: {values} in a batch of {', '.join(names)}"
        self._recent = [*self._recent, (text, list(names))][-_REMEMBERED:]
        return text

    def rolled_back(self) -> None:
        """The run has gone back to its last good state."""
        self.rollbacks, self.in_a_row = self.rollbacks + 1, 0

    def report(self) -> str:
        """What is known of the steps that were left out, for whoever has to find the cause."""
        counts = Counter(name for _, names in self._recent for name in names)
        often = [(n, name) for name, n in counts.most_common(5) if n > 1]
        lines = [
            f"{self.skipped} steps were left out for a loss or gradient that is not finite, the "
            f"last {self.in_a_row} in a row; the run went back {self.rollbacks} times, to a "
            f"learning rate {self.rate_factor:g} times that of the settings.",
            "The last of them:",
            *(f"  {text}" for text, _ in self._recent[-5:]),
        ]
        if often:
            listed = ", ".join(f"{name} ({n} times)" for n, name in often)
            lines.append(f"Files that were in several of them: {listed}.")
        lines.append(
            "If the same files come back, look at them. If not, training diverges: try a smaller "
            "optim.learning_rate or optim.clip_ratio, or --amp bf16 or off."
        )
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "rollbacks": self.rollbacks,
            "recent": [[text, list(names)] for text, names in self._recent],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self.in_a_row, self.rollbacks = (
            int(state[name]) for name in ("skipped", "in_a_row", "rollbacks")
        )
        self._recent = [(str(text), list(map(str, names))) for text, names in state["recent"]]
