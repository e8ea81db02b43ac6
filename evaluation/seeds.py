"""Spread over seeds, and the test of a difference over seeds.

`scores` (r, n) are one metric of one model: r runs of it, which differ in their seed, on n files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# Seeds a side that a difference must have before it is marked as better or worse.
MARKED_SEEDS = 3
# Scores that agree to so many decimals are equal: beyond is the rounding of means and differences.
DECIMALS = 9
ROUNDING = 10.0**-DECIMALS

Values = NDArray[np.float64]


@dataclass(frozen=True)
class SeedTest:
    """Welch's t-test that two systems have the same mean over trainings.

    Attributes:
        low, high: the confidence interval of the difference, `other - baseline`.
        p: two-sided.
        seeds: of the baseline and of the other.
        deviation: the pooled standard deviation of the seeds' means.
        p_holm: p among those that it was tested together with (`with_holm`); None before that.
    """

    low: float
    high: float
    p: float
    seeds: tuple[int, int]
    deviation: float
    p_holm: float | None = None


@dataclass(frozen=True)
class Spread:
    """Two standard deviations (n - 1 in the denominator) of different things.

    Attributes:
        runs: how many there are.
        over_runs: of the runs' means: how much a seed decides. None for a single run.
        over_files: of the files' means over the runs: how much the files differ. None for fewer
            than two files.
        lowest, highest: of the runs' means. None for a single run.
    """

    runs: int
    over_runs: float | None
    over_files: float | None
    lowest: float | None = None
    highest: float | None = None


def spread(scores: ArrayLike) -> Spread:
    """Return how much scores (r, n) differ between runs and between files, over complete files.

    A difference between two models that is not large against `over_runs` may be chance of the
    training, no matter how small its file interval and its p over files are.

    Raises:
        ValueError: scores is not (r, n).
    """
    table = score_table(scores)
    table = table[:, np.isfinite(table).all(axis=0)]
    runs, files = table.shape
    means = table.mean(axis=1) if runs > 1 and files else None
    return Spread(
        runs=runs,
        over_runs=None if means is None else float(means.std(ddof=1)),
        lowest=None if means is None else float(means.min()),
        highest=None if means is None else float(means.max()),
        over_files=float(table.mean(axis=0).std(ddof=1)) if runs and files > 1 else None,
    )


def welch(baseline: ArrayLike, other: ArrayLike, level: float = 0.95) -> SeedTest | None:
    """Compare the means of seeds by Welch's t-test, over the files that all runs have.

    Args:
        baseline, other: scores (r, n) and (r', n); each run counts once, with its mean.
        level: of the confidence interval.

    Returns:
        None where a side has fewer than two seeds or seeds that do not differ: its variance is not
        known.

    Source: Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", Biometrika 34, 1947.
    """
    ours, theirs = score_table(other), score_table(baseline)
    complete = np.isfinite(ours).all(axis=0) & np.isfinite(theirs).all(axis=0)
    if min(len(ours), len(theirs)) < 2 or not complete.any():
        return None
    a, b = (table[:, complete].mean(axis=1) for table in (ours, theirs))
    if min(np.ptp(a), np.ptp(b)) < ROUNDING:
        return None
    found: Any = stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(level)
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    return SeedTest(
        low=float(low),
        high=float(high),
        p=float(found.pvalue),
        seeds=(len(b), len(a)),
        deviation=math.sqrt(squares / (len(a) + len(b) - 2)),
    )


def seeds_needed(
    deviation: float, difference: float, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Return how many seeds a side a two-sided t-test needs to see a true difference.

    The power is that of the noncentral t distribution, for equally many seeds a side of equal
    variance.

    Args:
        deviation: the standard deviation over seeds. difference: in the same unit.
        alpha: of the test. power: the probability to be reached that p < alpha.
    """
    effect = difference / deviation
    # The normal approximation needs fewer seeds than the t distribution: the search starts there.
    quantiles = stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)
    seeds = max(2, math.floor(2 * (quantiles / effect) ** 2))
    while _power(effect, seeds, alpha) < power:
        seeds += 1
    return seeds


def _power(effect: float, seeds: int, alpha: float) -> float:
    """Of a two-sided t-test with so many seeds a side; effect: in standard deviations."""
    freedom, shift = 2 * (seeds - 1), effect * math.sqrt(seeds / 2)
    critical = stats.t.isf(alpha / 2, freedom)
    beyond = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    return float(beyond)


def score_table(scores: ArrayLike) -> Values:
    """Return scores as an array (r, n).

    Raises:
        ValueError: they are of another shape.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores must be (runs, files), but the shape is {table.shape}")
    return table
