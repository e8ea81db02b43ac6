"""One system against another: hand values, definitions, and what must not change the outcome."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_statistics import NAN, draw

from evaluation.statistics import Comparison, Interval, compare, holm, mean_interval, with_holm


def compared(differences: list[float], **options: float) -> Comparison:
    """The comparison whose differences these are."""
    found = compare(np.zeros((1, len(differences))), [differences], resamples=200, **options)
    assert found is not None
    return found


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


def test_comparisons_get_their_adjusted_p_in_their_places():
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    one, none, two = compared(rising), compared([0.0, 0.0]), compared([*rising, -0.7])
    found = with_holm([one, None, none, two])
    assert [each and each.p_holm for each in found] == holm([one.p, None, None, two.p])
    assert found[0] is not None
    assert found[0].p_holm == 2 * found[0].p  # type: ignore[operator]
    assert [each and each.p for each in found] == [one.p, None, None, two.p]
    assert one.p_holm is None


def test_tests_over_seeds_are_a_family_of_their_own():
    files = draw(1, 20)
    seeds = files + np.array([[0.0], [0.1], [0.2]])
    one, alone, two = (compare(seeds, other) for other in (seeds + 0.3, files, seeds + 0.5))
    found = with_holm([one, alone, two])
    tests = [each and each.over_seeds for each in found]
    assert [test and test.p_holm for test in tests] == holm([test and test.p for test in tests])
    assert tests[1] is None
    assert tests[0] is not None
    assert tests[0].p_holm == pytest.approx(tests[0].p)  # the larger of two
    assert found[0] is not None
    assert found[0].p_holm == pytest.approx(3 * found[0].p)  # type: ignore[operator]


def test_without_a_common_file_there_is_nothing_to_compare():
    assert compare(np.zeros((1, 0)), np.zeros((2, 0))) is None
    assert compare(np.zeros((0, 3)), np.zeros((1, 3))) is None
    assert compare([[1.0, NAN]], [[NAN, 1.0]]) is None


def test_bad_arguments():
    with pytest.raises(ValueError, match="3 files against 2: they must be the same"):
        compare([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"must be \(runs, files\)"):
        compare([1.0, 2.0], [[1.0, 2.0]])
    for tie in (-0.1, NAN):
        with pytest.raises(ValueError, match="expected at least 0"):
            compare([[1.0, 2.0]], [[1.0, 2.0]], tie=tie)
