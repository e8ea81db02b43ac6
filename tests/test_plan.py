"""The plan of the embedded corpus and its text form."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import synthesise
from data.errors import DataError
from data.espeak import Voice
from data.plan import from_csv, plan, to_csv


def test_plan_is_a_function_of_the_seed_and_splits_do_not_depend_on_each_other():
    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    longer = [row for row in plan(3, train=30, valid=2, test=40) if row.split == "test"]
    assert longer == [row for row in plan(3) if row.split == "test"]


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_plan_follows_the_protocol(seed: int):
    rows = plan(seed)
    by_split = {
        split: [row for row in rows if row.split == split] for split in ("train", "valid", "test")
    }
    assert {split: len(part) for split, part in by_split.items()} == synthesise.SIZES
    assert len({row.name for row in rows}) == len(rows)
    assert len({row.noise_seed for row in rows}) == len(rows)
    assert len({row.text for row in rows}) == len(rows)
    people = {split: {row.speaker for row in part} for split, part in by_split.items()}
    variants = {split: {row.variant for row in part} for split, part in by_split.items()}
    for kind in (people, variants):
        assert not kind["train"] & kind["valid"]
        assert not kind["train"] & kind["test"]
        assert not kind["valid"] & kind["test"]
    assert sum(map(len, people.values())) >= 24
    for part in people.values():
        assert {name[0] for name in part} == {"f", "m"}
    assert all(row.name.split("_")[0] == row.speaker and "-" not in row.name for row in rows)

    assert {row.snr_db for row in by_split["train"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["valid"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["test"]} == {2.5, 7.5, 12.5, 17.5}
    noises = {split: {row.noise for row in part} for split, part in by_split.items()}
    assert noises["test"] - noises["train"] == {"wind", "music"}
    conditions = Counter((row.noise, row.snr_db) for row in by_split["test"])
    assert set(conditions.values()) == {2}
    for row in rows:
        talkers = {Voice.parse(text).variant for text in row.babble.split()}
        assert bool(talkers) == (row.noise == "babble")
        assert row.variant not in talkers
        assert talkers <= variants[row.split]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))
def test_csv_keeps_every_bit(seed: int, train: int, valid: int, test: int):
    rows = plan(seed, train, valid, test)
    assert from_csv(to_csv(rows)) == rows
    assert to_csv(from_csv(to_csv(rows))) == to_csv(rows)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", to_csv(plan())[:3000], "recipe\n"])
def test_other_csv_is_refused(text: str):
    if text == "recipe\n":
        assert from_csv(text) == []
        return
    with pytest.raises(DataError, match=r"corpus\.csv is not a plan"):
        from_csv(text)


@pytest.mark.parametrize("sizes", [{"train": -1}, {"train": 0, "valid": 0, "test": 0}])
def test_impossible_sizes(sizes: dict[str, int]):
    with pytest.raises(DataError, match="must not be negative"):
        plan(0, **sizes)
