"""Many things in one message: the first of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """At most so many of them, one after the other."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def some_lines(items: Sequence[str], most: int) -> str:
    """At most so many of them, each on a line of its own, indented."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "\n".join(f"  {item}" for item in [*items[:most], *more])
