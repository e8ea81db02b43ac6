"""Intervals, adjusted p values and spreads against hand values, definitions and simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from evaluation import statistics
from evaluation.statistics import Interval, holm, mean_interval

NAN = math.nan
Values = NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Values:
    """Scores such as PESQ: a few units with a long tail."""
    return 1 + np.random.default_rng(seed).gamma(2.0, 0.6, shape)


# The interval of a mean


def test_interval_of_a_normal_sample_is_that_of_the_t_distribution():
    x = np.random.default_rng(0).normal(3, 0.5, 400)
    found = mean_interval(x[None])
    assert found is not None
    expected = stats.t.interval(0.95, 399, x.mean(), x.std(ddof=1) / 20)
    assert found.mean == pytest.approx(x.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.003)  # width 0.1
    assert found.count == 400


def test_interval_is_what_scipy_makes_of_its_own_draws():
    x = draw(1, 60)
    found = mean_interval(x, level=0.9)
    assert found is not None
    expected = stats.bootstrap((x[0],), np.mean, confidence_level=0.9, rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)  # width 0.34
    # Of a skewed sample, BCa's limits are not at equal distances from the mean.
    assert found.high - found.mean > 1.05 * (found.mean - found.low)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    truth = 1 + 2.0 * 0.6
    hits = 0
    for seed in range(200):
        found = mean_interval(draw(1, 60, seed=seed), resamples=1000)
        assert found is not None
        hits += found.low <= truth <= found.high
    # 95 %, less the little that it falls short of at 60 files; three standard deviations.
    assert 0.89 <= hits / 200 <= 0.99


def test_a_higher_level_is_a_wider_interval():
    found = [mean_interval(draw(1, 50), level) for level in (0.5, 0.9, 0.99)]
    widths = [each.high - each.low for each in found if each]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_the_same_scores_have_the_same_interval_and_another_seed_nearly_so():
    x = draw(1, 100)
    first, other = mean_interval(x), mean_interval(x, seed=1)
    statistics._draws.cache_clear()
    assert mean_interval(x) == first
    assert first is not None
    assert other is not None
    assert other != first
    assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=0.02)


def test_drawing_in_pieces_draws_every_file_equally_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "_BATCH", 1000)
    one_file = np.eye(1, 30)[0]
    found = statistics._resampled_means(one_file, 5000, 0) * 30
    assert len(found) == 5000
    assert found.mean() == pytest.approx(1, abs=0.05)
    assert found.var() == pytest.approx(29 / 30, abs=0.1)  # binomial
    statistics._draws.cache_clear()


def test_no_number_of_files_overflows_the_counts():
    for files in (1, 2, 255, 256, 300):
        assert (statistics._draws(files, 50, 0, 0).sum(axis=1, dtype=int) == files).all()


def test_runs_are_averaged_file_by_file():
    x = draw(3, 40)
    assert mean_interval(x) == mean_interval(x.mean(axis=0, keepdims=True))


def test_only_files_that_every_run_scored_count():
    x = draw(2, 40)
    x[0, 3] = x[1, 7] = NAN
    x[1, 8] = math.inf
    kept = np.delete(x, [3, 7, 8], axis=1)
    assert mean_interval(x) == mean_interval(kept)
    assert mean_interval(kept).count == 37  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(0, 5), (1, 0), (0, 0)])
def test_nothing_has_no_mean(shape: tuple[int, int]):
    nothing = np.zeros(shape)
    assert mean_interval(nothing) is None


def test_files_without_a_score_have_no_mean():
    assert mean_interval([[NAN, NAN]]) is None
    assert mean_interval([[1.0, NAN], [NAN, 1.0]]) is None


def test_one_file_and_equal_files_have_an_interval_of_no_width():
    assert mean_interval([[2.5]]) == Interval(2.5, 2.5, 2.5, 1)
    assert mean_interval([[0.1] * 7]) == Interval(0.1, 0.1, 0.1, 7)
    found = mean_interval([[0.3, 0.1 + 0.2, 0.3]])  # a rounding apart
    assert found is not None
    assert found.low == found.high


def test_two_files_have_an_interval_between_them():
    assert mean_interval([[1.0, 2.0]]) == Interval(1.5, 1.0, 2.0, 2)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12), st.integers(0, 3))
def test_an_interval_holds_its_mean_and_lies_between_the_files(x: list[float], seed: int):
    found = mean_interval([x], resamples=300, seed=seed)
    assert found is not None
    assert min(x) - 1e-9 <= found.low <= found.mean <= found.high <= max(x) + 1e-9


# Several tests at once


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9, 0.2]) == pytest.approx([1, None, 1, 0.6])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    assert holm([None]) == [None]


def rejected(ps: list[float], alpha: float) -> set[int]:
    """Holm's procedure as it is defined: from the smallest p on, until one is too large."""
    left, found = list(range(len(ps))), set()
    while left:
        first = min(left, key=lambda i: ps[i])
        if ps[first] > alpha / len(left):
            break
        found.add(first)
        left.remove(first)
    return found


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(1e-6, 0.999))
def test_holm_rejects_what_the_procedure_rejects(ps: list[float], alpha: float):
    adjusted = holm(ps)
    # On the border, a division and a multiplication may round apart.
    assume(all(abs(p - alpha) > 1e-9 for p in adjusted if p is not None))
    assert {i for i, p in enumerate(adjusted) if p is not None and p <= alpha} == rejected(
        ps, alpha
    )


@given(st.lists(st.none() | st.floats(0, 1), max_size=8), st.randoms())
def test_holm_keeps_order_places_and_bounds(ps: list[float | None], random: object):
    adjusted = holm(ps)
    assert [p is None for p in adjusted] == [p is None for p in ps]
    known = sorted((p, q) for p, q in zip(ps, adjusted, strict=True) if p is not None)
    assert all(p <= q <= 1 for p, q in known)
    assert [q for _, q in known] == sorted(q for _, q in known)
    order = list(range(len(ps)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([ps[i] for i in order]) == [adjusted[i] for i in order]


@pytest.mark.parametrize("p", [-0.1, 1.1, NAN])
def test_holm_refuses_what_is_no_p(p: float):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        holm([0.5, p])


# What cannot be meant


def test_bad_arguments():
    for scores in ([1.0, 2.0], 3.0, [[[1.0]]]):
        with pytest.raises(ValueError, match=r"must be \(runs, files\)"):
            mean_interval(scores)
    for level in (0, 1, 95, NAN):
        with pytest.raises(ValueError, match="between 0 and 1"):
            mean_interval([[1.0, 2.0]], level=level)


def test_free_of_torch():
    code = "import sys, evaluation.statistics, evaluation.conditions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
