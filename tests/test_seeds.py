"""Spreads and tests over seeds against hand values, tables and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from test_statistics import NAN, Values, draw

from evaluation.seeds import Spread, seeds_needed, spread, welch
from evaluation.statistics import mean_interval

# What is of the runs, what of the files


def test_spread_keeps_runs_and_files_apart():
    files, runs = np.array([1.0, 2.0, 3.0, 6.0]), np.array([-0.1, 0.0, 0.4])
    found = spread(runs[:, None] + files)
    assert found.runs == 3
    assert found.over_runs == pytest.approx(runs.std(ddof=1))
    assert (found.lowest, found.highest) == pytest.approx((2.9, 3.4))
    assert found.over_files == pytest.approx(files.std(ddof=1))


def test_spread_is_of_the_files_that_every_run_has():
    x = draw(2, 9)
    x[0, 4] = NAN
    assert spread(x) == spread(np.delete(x, 4, axis=1))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (np.zeros((0, 4)), Spread(0, None, None)),
        (np.zeros((3, 0)), Spread(3, None, None)),
        ([[1.0, 3.0]], Spread(1, None, math.sqrt(2))),
        ([[1.0], [3.0]], Spread(2, math.sqrt(2), None, 1.0, 3.0)),
        ([[NAN, 1.0], [2.0, NAN]], Spread(2, None, None)),
    ],
)
def test_spread_of_little(scores: Values, expected: Spread):
    found = spread(scores)
    assert vars(found) == pytest.approx(vars(expected))


def test_an_interval_does_not_cover_the_seeds():
    """Which is why `spread` is reported: of many files, that of two runs can miss both."""
    files = draw(1, 2000)
    found = mean_interval(np.concatenate([files - 0.3, files + 0.3]))
    alone = mean_interval(files)
    assert found is not None
    assert alone is not None
    assert found.high - found.low == pytest.approx(alone.high - alone.low)
    assert spread(np.concatenate([files - 0.3, files + 0.3])).over_runs == pytest.approx(
        0.6 / math.sqrt(2)
    )


# Tests over seeds


def of_seeds(*means: float) -> Values:
    """Scores (r, 4) of runs that have these means."""
    return np.array(means)[:, None] + [-0.3, -0.1, 0.1, 0.3]


def test_welch_by_hand():
    # Variances 2 and 8, of two seeds each: (2 + 8) / 2 = 5 is the squared error of the difference
    # 4 - 2, which has 5² / (1² + 4²) degrees of freedom.
    error, freedom = math.sqrt(5), 25 / 17
    half = stats.t.isf(0.025, freedom) * error
    found = welch(of_seeds(1, 3), of_seeds(2, 6))
    p = 2 * stats.t.sf(2 / error, freedom)
    assert found is not None
    assert found.seeds == (2, 2)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert (found.p, found.deviation) == pytest.approx((p, error))


def test_welch_is_scipys_on_the_means_of_seeds():
    rng = np.random.default_rng(0)
    baseline, other = rng.normal(2.5, 0.05, (3, 40)), rng.normal(2.52, 0.01, (5, 40))
    baseline[1, 7] = other[2, 9] = NAN
    found = welch(baseline, other, level=0.9)
    kept = np.delete(baseline, [7, 9], axis=1), np.delete(other, [7, 9], axis=1)
    expected = stats.ttest_ind(*(each.mean(axis=1) for each in reversed(kept)), equal_var=False)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.9)))
    assert found.seeds == (3, 5)


def test_welch_rejects_equal_systems_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [welch(rng.normal(size=(3, 1)), rng.normal(size=(6, 1))) for _ in range(2000)]
    # Three standard deviations of a share of 5 % in 2000.
    assert np.mean([each.p < 0.05 for each in found if each]) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    ("baseline", "other"),
    [
        (of_seeds(1), of_seeds(2, 3, 4)),
        (of_seeds(1, 2, 3), of_seeds(2)),
        (of_seeds(1, 1), of_seeds(2, 3)),
        ([[NAN], [1.0]], [[1.0], [2.0]]),
    ],
)
def test_welch_needs_the_variance_of_both_sides(baseline: Values, other: Values):
    assert welch(baseline, other) is None


@pytest.mark.parametrize(("effect", "expected"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_seeds_needed_are_those_of_cohens_tables(effect: float, expected: int):
    """Cohen, "Statistical power analysis for the behavioral sciences", table 2.4.1."""
    assert seeds_needed(1.0, effect) == expected
    assert seeds_needed(0.1, 0.1 * effect) == expected


def test_seeds_needed_reach_the_power_and_one_less_does_not():
    deviation, difference = 0.035, 0.05
    needed = seeds_needed(deviation, difference)
    rng = np.random.default_rng(0)
    power = {}
    for seeds in (needed - 1, needed):
        runs = rng.normal(0, deviation, (2, 100_000, seeds))
        p = stats.ttest_ind(runs[0] + difference, runs[1], axis=1).pvalue
        power[seeds] = (p < 0.05).mean()
    assert power[needed - 1] < 0.8 <= power[needed]


def test_two_seeds_are_always_needed():
    assert seeds_needed(1e-6, 0.05) == 2
