"""Intervals and tests against hand values, definitions, tables and simulation."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bsbimamba.metrics.statistics import (
    Comparison,
    Interval,
    compare,
    holm,
    mean_interval,
    run_means,
    welch,
)

NAN = math.nan
Values = NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Values:
    """Scores such as PESQ: a few units with a long tail."""
    return 1 + np.random.default_rng(seed).gamma(2.0, 0.6, shape)


def interval(scores: ArrayLike) -> Interval:
    found = mean_interval(np.asarray(scores, float))
    assert found is not None
    return found


def compared(differences: list[float], **options: float) -> Comparison:
    """The comparison whose differences these are."""
    found = compare(np.zeros((1, len(differences))), np.array([differences]), **options)
    assert found is not None
    return found


def test_interval_of_a_normal_sample_is_that_of_the_t_distribution():
    x = np.random.default_rng(0).normal(3, 0.5, 400)
    found = interval([x])
    expected = stats.t.interval(0.95, 399, x.mean(), x.std(ddof=1) / 20)
    assert found.mean == pytest.approx(x.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.003)  # width 0.1
    assert interval([x]) == found  # the same draws


def test_interval_is_over_files_that_every_run_scored_by_their_mean():
    x = draw(2, 40)
    x[0, 3] = x[1, 7] = NAN
    kept = np.delete(x, [3, 7], axis=1)
    assert interval(x) == interval(kept.mean(axis=0, keepdims=True))
    assert interval(x).count == 38


def test_interval_of_few_files():
    assert mean_interval(np.array([[1.0, NAN], [NAN, 1.0]])) is None
    assert interval([[2.5]]) == Interval(2.5, 2.5, 2.5, 1)
    found = interval([[0.3, 0.1 + 0.2, 0.3]])  # a rounding apart
    assert found.low == found.high
    assert interval([[1.0, 2.0]]) == Interval(1.5, 1.0, 2.0, 2)
    assert not interval([[1.0, 2.0, 3.0, 4.0]]).is_sound


def test_comparison_by_hand():
    found = compared([0.0, 0.2, 0.4, -0.1, 0.3, 0.5, -0.6, 0.7])
    assert found.difference.mean == pytest.approx(1.4 / 8)
    assert (found.wins, found.ties, found.losses) == (5, 1, 2)


def test_comparison_knows_the_better_direction_and_ties():
    for higher, wins, losses in ((True, 2, 1), (False, 1, 2)):
        found = compared([0.1, -0.1, 0.101, -0.101, 0.0, 0.5], tie=0.1, higher_is_better=higher)
        assert (found.wins, found.ties, found.losses) == (wins, 3, losses)


def test_comparison_is_over_the_files_that_both_have():
    one, other = draw(2, 30), draw(3, 30, seed=1)
    one[1, 4], other[0, 5], other[2, 4] = NAN, NAN, NAN
    assert compare(one, other) == compare(np.delete(one, [4, 5], 1), np.delete(other, [4, 5], 1))
    assert compare(np.array([[1.0, NAN]]), np.array([[NAN, 1.0]])) is None
    same = compare(np.full((1, 9), 0.1), np.full((3, 9), 0.1))  # but for rounding
    assert same == Comparison(Interval(0, 0, 0, 9), None, 0, 9, 0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.2]) == pytest.approx([1, 1, 0.6])
    assert holm([]) == []


def of_seeds(*means: float) -> Values:
    """Scores (r, 4) of runs that have these means."""
    return np.array(means)[:, None] + [-0.3, -0.1, 0.1, 0.3]


def test_run_means_are_over_the_files_that_all_runs_have():
    assert run_means(np.array([[1.0, NAN, 3.0], [2.0, 9.0, 6.0]])) == [2.0, 4.0]
    assert run_means(np.array([[NAN, 1.0], [2.0, NAN]])) == run_means(np.zeros((3, 0))) == []


def test_welch_by_hand():
    # Variances 2 and 8, of two seeds each: (2 + 8) / 2 = 5 is the squared error of the difference
    # 4 - 2, which has 5² / (1² + 4²) degrees of freedom.
    error, freedom = math.sqrt(5), 25 / 17
    half = stats.t.isf(0.025, freedom) * error
    found = welch(of_seeds(1, 3), of_seeds(2, 6))
    assert found is not None
    assert found.seeds == (2, 2)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(2 / error, freedom))


@pytest.mark.parametrize(
    ("baseline", "other"),
    [
        (of_seeds(1), of_seeds(2, 3, 4)),
        (of_seeds(1, 2, 3), of_seeds(2)),
        (of_seeds(1, 1), of_seeds(2, 3)),
        (np.array([[NAN], [1.0]]), np.array([[1.0], [2.0]])),
    ],
)
def test_welch_needs_the_variance_of_both_sides(baseline: Values, other: Values):
    assert welch(baseline, other) is None
