"""What scores allow to be said: means with intervals, differences with tests. Free of torch.

`scores` (r, n) are one metric of one model: r runs of it, which differ in their seed, on n files;
NaN where a file has no score. A file counts where every run has its score, with its mean over the
runs: otherwise the files that one run failed on would be those of the other runs.

Two questions have two tests. Would other files show the same difference? A file interval is a
bootstrap over the files, and the Wilcoxon test ranks them; both hold for these weights and these
speakers only. Would other trainings show it? `welch` compares the means of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from evaluation.seeds import DECIMALS, ROUNDING, SeedTest, Values, score_table, welch

# What is drawn at once: files × resamples. A piece of the draws is of a byte each.
_BATCH = 1 << 20
# Differences that are not zero: with fewer, no outcome of a Wilcoxon test has p < 0.05.
_FEWEST = 6


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval from `low` to `high`. count: files that it is over."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_sound(self) -> bool:
        """Whether the interval says anything: draws from fewer than five files hardly differ."""
        return self.count >= 5


@dataclass(frozen=True)
class Comparison:
    """One system against a baseline, on the files that both have; `other - baseline` throughout.

    Attributes:
        difference: the mean of the differences.
        p: of the two-sided Wilcoxon signed-rank test that they lie symmetrically about 0; None
            where fewer than 6 differ from 0, of which no outcome has p < 0.05.
        rank_biserial: the matched-pairs rank-biserial correlation, in [-1, 1]: the share of the
            ranks that is of positive differences less the share that is of negative ones.
        cohen_d: Cohen's d_z, the mean of the differences in their standard deviations; None where
            they have none.
        wins, ties, losses: files on which the other one is better, as good, worse.
        p_holm: p among those that it was tested together with (`with_holm`); None before that.
        over_seeds: see `welch`.
    """

    difference: Interval
    p: float | None
    rank_biserial: float
    cohen_d: float | None
    wins: int
    ties: int
    losses: int
    p_holm: float | None = None
    over_seeds: SeedTest | None = None


def mean_interval(
    scores: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """The mean of scores (r, n) and its bootstrap interval over the files; None without a file.

    Bias-corrected and accelerated (BCa; Efron, "Better bootstrap confidence intervals", JASA 82,
    1987). Where all scores are the same, as that of a single file is, `low` and `high` are the
    mean. Whenever as many files meet the same seed, the same are drawn.

    Raises:
        ValueError: scores is not (r, n), or the level not between 0 and 1.
    """
    return _interval(_file_means(scores), level, resamples, seed)


def compare(
    baseline: ArrayLike,
    other: ArrayLike,
    tie: float = 0.0,
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison | None:
    """The system `other`, scores (r', n), against `baseline`, (r, n); None without a common file.

    The test keeps the zeros among the differences while it ranks them (Pratt, "Remarks on zeros
    and ties in the Wilcoxon signed rank procedures", JASA 54, 1959): leaving them out would hide
    how many files did not change. So does the effect size (Kerby, "The simple difference formula",
    Comprehensive Psychology 3, 2014), to which they add ranks of neither sign.

    Args:
        tie: a difference no larger than this is neither win nor loss; it counts in all else.
        higher_is_better: False where a lower score is the better one; it decides what a win is.
        level, resamples, seed: of the interval, as in `mean_interval`.

    Raises:
        ValueError: as `mean_interval`; or the files are not as many, or `tie` is negative.
    """
    if not tie >= 0:
        raise ValueError(f"a tie is a difference of up to {tie}, expected at least 0")
    ours, theirs = _file_means(other), _file_means(baseline)
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.size} files against {theirs.size}: they must be the same")
    differences = np.round(ours - theirs, DECIMALS)
    interval = _interval(differences, level, resamples, seed)
    if interval is None:
        return None
    differences = differences[np.isfinite(differences)]
    ranks = np.sign(differences) * stats.rankdata(np.abs(differences))
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    better = differences if higher_is_better else -differences
    wins, losses = (better > tie).sum(), (better < -tie).sum()
    return Comparison(
        difference=interval,
        p=_wilcoxon(differences),
        # All ranks sum to n (n + 1) / 2, those of zeros among them.
        rank_biserial=float(ranks.sum() / (len(ranks) * (len(ranks) + 1) / 2)),
        cohen_d=interval.mean / deviation if deviation > ROUNDING else None,
        wins=int(wins),
        ties=int(len(better) - wins - losses),
        losses=int(losses),
        over_seeds=welch(baseline, other, level),
    )


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for having been tested together, in their order; None stays None.

    Below α after it as before, and the chance of any false rejection among them is at most α,
    whatever their dependence. Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6, 1979.

    Raises:
        ValueError: a p is not in [0, 1].
    """
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for place, (p, i) in enumerate(known):
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}, expected 0 to 1")
        # A larger p must not come out below a smaller one.
        highest = max(highest, min(1.0, (len(known) - place) * p))
        adjusted[i] = highest
    return adjusted


def with_holm(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """Return the comparisons with their `p_holm`.

    The tests over files are one family and those over seeds another; a family should be all that
    one table tests.
    """
    over_files = holm([None if each is None else each.p for each in comparisons])
    seeds = [None if each is None else each.over_seeds for each in comparisons]
    over_seeds = holm([None if each is None else each.p for each in seeds])
    return [
        None
        if each is None
        else replace(each, p_holm=p, over_seeds=None if test is None else replace(test, p_holm=q))
        for each, p, test, q in zip(comparisons, over_files, seeds, over_seeds, strict=True)
    ]


def _file_means(scores: ArrayLike) -> Values:
    """(r, n) to the means over the runs (n,), NaN where one has no score."""
    table = score_table(scores)
    if not len(table):
        return np.full(table.shape[1], np.nan)
    return np.where(np.isfinite(table), table, np.nan).mean(axis=0)


def _interval(values: Values, level: float, resamples: int, seed: int) -> Interval | None:
    """Of values (n,), NaN among them left out."""
    if not 0 < level < 1:
        raise ValueError(f"the level is {level}, expected between 0 and 1")
    x = values[np.isfinite(values)]
    if not len(x):
        return None
    mean = math.fsum(x) / len(x)
    if np.ptp(x) < ROUNDING:
        return Interval(mean, mean, mean, len(x))
    # scipy makes limits of means that are there already. It would draw the files anew for each
    # metric and system by itself, which takes six times as long.
    drawn = SimpleNamespace(bootstrap_distribution=_resampled_means(x, resamples, seed))
    found: Any = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=0,
        bootstrap_result=drawn,
        confidence_level=level,
        method="BCa",
        batch=max(1, _BATCH // len(x)),
    )
    low, high = found.confidence_interval
    return Interval(mean, float(low), float(high), len(x))


def _resampled_means(x: Values, resamples: int, seed: int) -> Values:
    """Means (resamples,) of as many files as x (n,) has, drawn from it with replacement."""
    step = max(1, _BATCH // len(x))
    parts = [
        _draws(len(x), min(step, resamples - start), seed, start) @ x
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts) / len(x)


@lru_cache(maxsize=64)
def _draws(files: int, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    """How often each file is in each of `count` resamples, (count, files)."""
    rng = np.random.default_rng([seed, start])
    drawn = rng.integers(files, size=(count, files)) + files * np.arange(count)[:, None]
    # A byte is enough: not even of thousands is one file ever drawn near 255 times.
    counts = np.bincount(drawn.ravel(), minlength=count * files).astype(np.uint8)
    return counts.reshape(count, files)


def _wilcoxon(differences: Values) -> float | None:
    """Exact for up to 50 differences (13, if two are equal or one is zero), else by the normal."""
    if np.count_nonzero(differences) < _FEWEST:
        return None
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
