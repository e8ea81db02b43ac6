"""Intervals, tests and effect sizes against hand values, definitions and simulation."""

from __future__ import annotations

import itertools
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
from evaluation.statistics import (
    Comparison,
    Interval,
    Spread,
    compare,
    holm,
    mean_interval,
    spread,
    with_holm,
)

NAN = math.nan
Values = NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Values:
    """Scores such as PESQ: a few units with a long tail."""
    return 1 + np.random.default_rng(seed).gamma(2.0, 0.6, shape)


def compared(differences: list[float], **options: float) -> Comparison:
    """The comparison whose differences these are."""
    found = compare(np.zeros((1, len(differences))), [differences], resamples=200, **options)
    assert found is not None
    return found


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
    assert compare(nothing, nothing) is None


def test_files_without_a_score_have_no_mean():
    assert mean_interval([[NAN, NAN]]) is None
    assert mean_interval([[1.0, NAN], [NAN, 1.0]]) is None
    assert compare([[1.0, NAN]], [[NAN, 1.0]]) is None


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


# The comparison of two systems


def exact_p(differences: list[float]) -> float:
    """Pratt's test by its definition: all signs of the differences that are not zero."""
    ranks = stats.rankdata(np.abs(differences))
    centre = ranks[np.nonzero(differences)].sum() / 2
    observed = abs(ranks[np.array(differences) > 0].sum() - centre)
    kept = [r for r, d in zip(ranks, differences, strict=True) if d]
    sums = [
        sum(itertools.compress(kept, signs))
        for signs in itertools.product((0, 1), repeat=len(kept))
    ]
    return float(np.mean([abs(each - centre) >= observed - 1e-9 for each in sums]))


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        [0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, 0.9],
        [-0.1, -0.2, 0.3, -0.4, -0.5, -0.65, -0.7, -0.8, 0.15, -0.95],
        [0.1, 0.1, -0.1, 0.2, 0.2, 0.2, 0.5, -0.3],
        [0.0, 0.0, 0.0, 0.1, 0.2, 0.3, -0.15, 0.5, 0.6],
        [0.0, 0.1, -0.1, 0.1, 0.3, 0.3, 0.3, -0.2, 0.0, 0.5],
    ],
)
def test_p_is_that_of_all_arrangements_of_signs(differences: list[float]):
    assert compared(differences).p == pytest.approx(exact_p(differences), abs=1e-12)


def test_p_of_many_files_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(0)
    ps = []
    for _ in range(300):
        found = compare(*rng.normal(size=(2, 1, 60)), resamples=10)
        assert found is not None
        ps.append(found.p)
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_zeros_count_in_the_test_and_in_the_effect():
    """Leaving out the files that did not change would make both the same as without them."""
    moved = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.015]
    bare, diluted = compared(moved), compared(moved + 20 * [0.0])
    assert diluted.rank_biserial < bare.rank_biserial
    assert diluted.p != bare.p


def test_hand_values():
    found = compared([0.0, 0.2, 0.4, -0.1, 0.3, 0.5, -0.6, 0.7])
    # Ranks: the zero 1; up 3 + 5 + 4 + 6 + 8 = 26; down 2 + 7 = 9; in all 36.
    assert found.rank_biserial == pytest.approx((26 - 9) / 36)
    assert found.difference.mean == pytest.approx(1.4 / 8)
    assert found.cohen_d == pytest.approx(0.175 / math.sqrt(1.155 / 7))
    assert (found.wins, found.ties, found.losses) == (5, 1, 2)


def test_differences_are_those_of_the_same_file():
    """Between files there is far more than between systems: unpaired, it would hide all."""
    baseline = 3 * draw(1, 200)
    found = compare(baseline, baseline + 0.01 + 0.001 * draw(1, 200, seed=1))
    alone = mean_interval(baseline)
    assert found is not None
    assert alone is not None
    assert found.difference.high - found.difference.low < 0.001 < alone.high - alone.low
    assert found.p is not None
    assert found.p < 1e-30
    assert found.rank_biserial == 1
    assert found.wins == 200


def test_swapping_the_systems_flips_every_sign():
    one, other = draw(1, 80), draw(1, 80, seed=1)
    there, back = compare(one, other), compare(other, one)
    assert there is not None
    assert back is not None
    assert back.p == there.p
    assert back.rank_biserial == pytest.approx(-there.rank_biserial)
    assert back.cohen_d == pytest.approx(-there.cohen_d)  # type: ignore[operator]
    assert (back.wins, back.ties, back.losses) == (there.losses, there.ties, there.wins)
    expected = Interval(-there.difference.mean, -there.difference.high, -there.difference.low, 80)
    assert vars(back.difference) == pytest.approx(vars(expected), abs=1e-9)


def test_a_constant_on_both_and_the_order_of_files_do_not_matter():
    one, other = draw(2, 70), draw(1, 70, seed=1)
    order = np.random.default_rng(2).permutation(70)
    before, moved = compare(one, other), compare(one + 17.3, other + 17.3)
    shuffled = compare(one[:, order], other[:, order])
    assert before is not None
    assert moved is not None
    assert shuffled is not None
    for found, tolerance in ((moved, 1e-8), (shuffled, 0.02)):  # other files are drawn
        assert vars(found.difference) == pytest.approx(vars(before.difference), abs=tolerance)
        assert found.p == before.p
        assert found.rank_biserial == before.rank_biserial
        assert (found.wins, found.losses) == (before.wins, before.losses)


def test_a_lower_score_can_be_the_better_one():
    """As of LLR and WSS. The difference itself keeps its sign."""
    differences = [-0.3, -0.2, -0.1, 0.05, 0.0, -0.4]
    high = compared(differences)
    low = compared(differences, higher_is_better=False)
    assert (high.wins, high.ties, high.losses) == (1, 1, 4)
    assert (low.wins, low.ties, low.losses) == (4, 1, 1)
    assert low.difference == high.difference
    assert low.rank_biserial == high.rank_biserial < 0


def test_a_tie_is_a_difference_no_larger_than_the_threshold():
    differences = [0.1, -0.1, 0.101, -0.101, 0.0, 0.5]
    found = compared(differences, tie=0.1)
    assert (found.wins, found.ties, found.losses) == (2, 3, 1)
    assert found.difference == compared(differences).difference
    assert found.rank_biserial == compared(differences).rank_biserial


def test_rounding_is_no_difference():
    """A mean of three equal scores need not be that score, nor 3.1 - 3.0 be 2.1 - 2.0."""
    same = compare(np.full((1, 9), 0.1), np.full((3, 9), 0.1))
    assert same is not None
    assert (same.wins, same.ties, same.losses) == (0, 9, 0)
    assert same.p is None
    equal = compare([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], [[1.1, 2.1, 3.1, 4.1, 5.1, 6.1]])
    assert equal is not None
    assert equal.cohen_d is None
    assert equal.difference.low == equal.difference.high == pytest.approx(0.1)


def test_only_files_that_both_have_are_compared():
    one, other = draw(2, 30), draw(3, 30, seed=1)
    one[1, 4], other[0, 5], other[2, 4] = NAN, NAN, NAN
    found = compare(one, other)
    assert found == compare(np.delete(one, [4, 5], 1), np.delete(other, [4, 5], 1))
    assert found is not None
    assert found.difference.count == found.wins + found.ties + found.losses == 28


def test_files_that_are_all_equal():
    found = compared([0.0] * 20)
    assert found == Comparison(Interval(0, 0, 0, 20), None, 0.0, None, 0, 20, 0)


def test_one_and_two_files():
    one, two = compared([0.5]), compared([0.5, -0.25])
    assert one == Comparison(Interval(0.5, 0.5, 0.5, 1), None, 1.0, None, 1, 0, 0)
    assert two.p is None
    assert two.rank_biserial == pytest.approx(1 / 3)
    assert two.cohen_d == pytest.approx(0.125 / (0.75 / math.sqrt(2)))


def test_there_is_a_p_from_six_differences_on():
    zeros = [0.0] * 10
    assert compared([*zeros, 0.1, 0.2, 0.3, 0.4, 0.5]).p is None
    assert compared([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).p == pytest.approx(2 / 2**6)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.integers(0, 2))
def test_of_any_differences(whole: list[int], tie: int):
    found = compared([x / 10 for x in whole], tie=tie / 10)
    assert found.wins == sum(x > tie for x in whole)
    assert found.losses == sum(x < -tie for x in whole)
    assert found.wins + found.ties + found.losses == len(whole)
    assert -1 <= found.rank_biserial <= 1
    assert abs(found.rank_biserial) < 1 or min(whole) * max(whole) > 0
    assert (found.p is None) == (sum(x != 0 for x in whole) < 6)
    if found.p is not None:
        assert found.p == pytest.approx(exact_p([x / 10 for x in whole]), abs=1e-12)


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


def test_comparisons_get_their_adjusted_p_in_their_places():
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    one, none, two = compared(rising), compared([0.0, 0.0]), compared([*rising, -0.7])
    found = with_holm([one, None, none, two])
    assert [each and each.p_holm for each in found] == holm([one.p, None, None, two.p])
    assert found[0] is not None
    assert found[0].p_holm == 2 * found[0].p  # type: ignore[operator]
    assert [each and each.p for each in found] == [one.p, None, None, two.p]
    assert one.p_holm is None


# What is of the runs, what of the files


def test_spread_keeps_runs_and_files_apart():
    files, runs = np.array([1.0, 2.0, 3.0, 6.0]), np.array([-0.1, 0.0, 0.4])
    found = spread(runs[:, None] + files)
    assert found.runs == 3
    assert found.over_runs == pytest.approx(runs.std(ddof=1))
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
        ([[1.0], [3.0]], Spread(2, math.sqrt(2), None)),
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


# What cannot be meant


def test_bad_arguments():
    for scores in ([1.0, 2.0], 3.0, [[[1.0]]]):
        with pytest.raises(ValueError, match=r"must be \(runs, files\)"):
            mean_interval(scores)
    with pytest.raises(ValueError, match="3 files against 2: they must be the same"):
        compare([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    for level in (0, 1, 95, NAN):
        with pytest.raises(ValueError, match="between 0 and 1"):
            mean_interval([[1.0, 2.0]], level=level)
    for tie in (-0.1, NAN):
        with pytest.raises(ValueError, match="expected at least 0"):
            compare([[1.0, 2.0]], [[1.0, 2.0]], tie=tie)


def test_free_of_torch():
    code = "import sys, evaluation.statistics, evaluation.conditions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
