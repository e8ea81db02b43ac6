"""Tables as cells, which Markdown, LaTeX and the page show each in its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One number or name of a table.

    Attributes:
        text: as shown. sort: what it is sorted by.
        detail: its file interval. files: how many it is over, where these are not all.
        deviation, span: of the seeds' means; the latter from the lowest to the highest.
        best: of its column. mark: "better" or "worse" than the baseline, where the test over seeds
            says so.
    """

    text: str
    sort: float | str | None = None
    detail: str = ""
    files: str = ""
    deviation: str = ""
    span: str = ""
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """columns: headings; all but the first are of numbers. caption: what it shows, a sentence."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
