"""Laws of growth: how a cost follows a size, from measurements of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Below this size what does not grow (launches, weights' gradients) is still a good part of a cost.
START = 4.0
# How far a linear cost may be off: in the exponent of its time, in the increments of its memory.
EXPONENT_TOLERANCE = 0.1
INCREMENT_TOLERANCE = 0.05


@dataclass(frozen=True)
class Law:
    """A cost as a function of a size.

    Attributes:
        exponent, r2: of the power law, and the share of the logarithms' variance that it explains.
        slope, intercept: of the straight line, in units of the cost (for a unit of the size).
        unevenness: by how much the largest increment for a unit of size exceeds the smallest, as a
            share of that; infinite where one is not positive.
        rise: by how much a unit of size costs more at some size than at a smaller one, as a share.
        sizes: how many the law is taken from.
    """

    exponent: float
    r2: float
    slope: float
    intercept: float
    unevenness: float
    rise: float
    sizes: int

    @property
    def is_linear_in_time(self) -> bool:
        return abs(self.exponent - 1) <= EXPONENT_TOLERANCE

    @property
    def is_linear_in_memory(self) -> bool:
        return self.unevenness <= INCREMENT_TOLERANCE

    @property
    def is_at_most_linear_in_memory(self) -> bool:
        """No second more costs more than those before: a small size may pay for what all need."""
        return self.rise <= INCREMENT_TOLERANCE


def fit(sizes: Sequence[float], costs: Sequence[float], start: float = START) -> Law | None:
    """The law of costs above 0 at growing sizes, by least squares, from the size `start` up.

    None where fewer than three sizes are left: through two points any law goes.
    """
    points = [(x, y) for x, y in zip(sizes, costs, strict=True) if x >= start]
    if len(points) < 3:
        return None
    x, y = np.array(points, dtype=float).T
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    rest = np.log(y) - (exponent * np.log(x) + offset)
    variance = np.square(np.log(y) - np.log(y).mean()).sum()
    slope, intercept = np.polyfit(x, y, 1)
    increments = np.diff(y) / np.diff(x)
    lowest = float(increments.min())
    return Law(
        exponent=float(exponent),
        r2=float(1 - np.square(rest).sum() / variance) if variance > 0 else 1.0,
        slope=float(slope),
        intercept=float(intercept),
        unevenness=float(increments.max()) / lowest - 1 if lowest > 0 else float("inf"),
        rise=float((y / x / np.minimum.accumulate(y / x)).max()) - 1,
        sizes=len(points),
    )
