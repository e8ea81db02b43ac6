"""Means with intervals, differences with tests, and the spread over seeds.

`scores` (r, n) are one metric of one model: r runs that differ in their seed, on n files; NaN where
a file has no score. A file counts where every run has its score, with its mean over the runs.

Two questions have two tests. Would other files show the same difference? A file interval is a
bootstrap over the files, and the Wilcoxon test ranks them; both hold for these weights and these
speakers only. Would other trainings show it? Welch's test compares the means of seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]
LEVEL, RESAMPLES = 0.95, 9999  # of intervals
# Seeds a side that a difference must have before it is marked as better or worse.
MARKED_SEEDS = 3
# Scores that agree to so many decimals are equal: the rest is the rounding of means.
_DECIMALS = 9
_ROUNDING = 10.0**-_DECIMALS
# Differences that are not zero: with fewer, no outcome of a Wilcoxon test has p < 0.05.
_FEWEST = 6


@dataclass(frozen=True)
class Interval:
    """A mean over `count` files with its confidence interval from `low` to `high`."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_sound(self) -> bool:
        """Whether the interval says anything: draws from fewer than five files hardly differ."""
        return self.count >= 5


@dataclass
class SeedTest:
    """Welch's t-test that two systems have the same mean over trainings.

    Attributes:
        low, high: the confidence interval of the difference, `other - baseline`.
        p: two-sided. p_holm: corrected for all tests of its table (`set_holm`).
        seeds: of the baseline and of the other.
    """

    low: float
    high: float
    p: float
    seeds: tuple[int, int]
    p_holm: float | None = None


@dataclass
class Comparison:
    """One system against a baseline, on the files that both have; `other - baseline` throughout.

    Attributes:
        difference: the mean of the differences.
        p: of the two-sided Wilcoxon signed-rank test that they lie symmetrically about 0; None
            where fewer than 6 differ from 0. p_holm: corrected for all tests of its table.
        wins, ties, losses: files on which the other one is better, as good, worse.
        over_seeds: see `welch`.
    """

    difference: Interval
    p: float | None
    wins: int
    ties: int
    losses: int
    p_holm: float | None = None
    over_seeds: SeedTest | None = None


def mean_interval(scores: Values) -> Interval | None:
    """Return the mean of scores (r, n) and its 95 % bootstrap interval; None without a file.

    Bias-corrected and accelerated (BCa; Efron, "Better bootstrap confidence intervals", JASA 82,
    1987), with a fixed seed. Where all scores are the same, `low` and `high` are the mean.
    """
    means = scores.mean(axis=0)
    means = means[np.isfinite(means)]
    if not len(means):
        return None
    mean = float(means.mean())
    if np.ptp(means) < _ROUNDING:
        return Interval(mean, mean, mean, len(means))
    found: Any = stats.bootstrap(
        (means,), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, batch=1000, rng=0
    )
    low, high = map(float, found.confidence_interval)
    return Interval(mean, low, high, len(means))


def compare(
    baseline: Values, other: Values, tie: float = 0.0, higher_is_better: bool = True
) -> Comparison | None:
    """Compare `other`, scores (r', n), with `baseline`, (r, n); None without a common file.

    The Wilcoxon test keeps the zeros among the differences while it ranks them (Pratt, "Remarks on
    zeros and ties in the Wilcoxon signed rank procedures", JASA 54, 1959): without them it would
    hide how many files did not change.

    Args:
        tie: a difference up to this is neither win nor loss; it counts in all else.
        higher_is_better: decides what a win is.
    """
    differences = np.round(other.mean(axis=0) - baseline.mean(axis=0), _DECIMALS)
    interval = mean_interval(differences[None])
    if interval is None:
        return None
    differences = differences[np.isfinite(differences)]
    better = differences if higher_is_better else -differences
    wins, losses = int((better > tie).sum()), int((better < -tie).sum())
    p = None
    if np.count_nonzero(differences) >= _FEWEST:
        p = float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    return Comparison(
        difference=interval,
        p=p,
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        over_seeds=welch(baseline, other),
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for having been tested together, in their order.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979.
    """
    order = np.argsort(ps)
    adjusted = np.empty(len(ps))
    products = np.arange(len(ps), 0, -1) * np.take(ps, order)
    adjusted[order] = np.maximum.accumulate(products).clip(max=1)
    return adjusted.tolist()


def set_holm(tests: Sequence[Comparison | SeedTest]) -> None:
    """Set the `p_holm` of the tests of one table that have a p."""
    known = [test for test in tests if test.p is not None]
    for test, p in zip(known, holm([test.p for test in known if test.p is not None]), strict=True):
        test.p_holm = p


def run_means(scores: Values) -> list[float]:
    """Return the means of the runs of scores (r, n), over complete files; [] without one."""
    table = scores[:, np.isfinite(scores).all(axis=0)]
    return table.mean(axis=1).tolist() if table.size else []


def welch(baseline: Values, other: Values) -> SeedTest | None:
    """Compare the means of seeds by Welch's t-test, over the files that all runs have.

    Welch, "The generalization of 'Student's' problem when several different population variances
    are involved", Biometrika 34, 1947.

    Args:
        baseline, other: scores (r, n) and (r', n); each run counts once, with its mean.

    Returns:
        None where a side has fewer than two seeds, or seeds that do not differ: its variance is not
        known.
    """
    complete = np.isfinite(other).all(axis=0) & np.isfinite(baseline).all(axis=0)
    if min(len(other), len(baseline)) < 2 or not complete.any():
        return None
    a, b = (table[:, complete].mean(axis=1) for table in (other, baseline))
    if min(np.ptp(a), np.ptp(b)) < _ROUNDING:
        return None
    found: Any = stats.ttest_ind(a, b, equal_var=False)
    low, high = map(float, found.confidence_interval(LEVEL))
    return SeedTest(low, high, float(found.pvalue), (len(b), len(a)))
