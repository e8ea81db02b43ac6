"""The plan of the embedded corpus and its text form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.noises import NOISES, TALKERS
from data.plan import SIZES, Row, from_csv, plan, to_csv
from data.voices import CAST, Speaker


def test_plan_is_a_function_of_the_seed_and_splits_do_not_depend_on_each_other():
    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    longer = [row for row in plan(3, train=30, valid=2, test=40) if row.split == "test"]
    assert longer == [row for row in plan(3) if row.split == "test"]


@pytest.mark.parametrize("seed", [0, 1, 77])
def test_plan_follows_the_protocol(seed: int):
    rows = plan(seed)
    by_split = {split: [row for row in rows if row.split == split] for split in SIZES}
    assert {split: len(part) for split, part in by_split.items()} == SIZES
    for key in ("name", "noise_seed", "text"):
        assert len({getattr(row, key) for row in rows}) == len(rows), key
    assert len({(row.length, row.width, row.height) for row in rows}) == len(rows)

    people = {split: {row.speaker for row in part} for split, part in by_split.items()}
    sexes = {split: Counter(name[0] for name in part) for split, part in people.items()}
    assert sexes == {split: Counter(f=women, m=men) for split, (women, men) in CAST.items()}
    heard = {split: set(map(variant, voices(part))) for split, part in by_split.items()}
    for kind in (people, heard):
        for one, other in combinations(SIZES, 2):
            assert not kind[one] & kind[other]
    assert all(row.name.split("_")[0] == row.speaker and "-" not in row.name for row in rows)

    assert {row.snr_db for row in by_split["train"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["valid"]} == {0, 5, 10, 15}
    assert {row.snr_db for row in by_split["test"]} == {2.5, 7.5, 12.5, 17.5}
    noises = {split: {row.noise for row in part} for split, part in by_split.items()}
    assert noises["train"] == noises["valid"]
    assert len(noises["train"]) == 10
    assert len(noises["test"]) == 5
    assert noises["train"] | noises["test"] == NOISES.keys()
    assert not noises["train"] & noises["test"]


@pytest.mark.parametrize("seed", [0, 5])
def test_conditions_and_speakers_are_balanced(seed: int):
    rows = plan(seed)
    for split, most in (("train", 1), ("valid", 1), ("test", 0)):
        part = [row for row in rows if row.split == split]
        conditions = Counter((row.noise, row.snr_db) for row in part)
        turns = Counter(row.speaker for row in part)
        if split != "valid":
            assert len(conditions) == {"train": 40, "test": 20}[split]
        assert max(conditions.values()) - min(conditions.values()) <= most
        assert max(turns.values()) - min(turns.values()) <= most


def test_people_in_the_noise_are_as_many_as_it_takes_and_never_the_speaker():
    for row in plan(2):
        low, high = TALKERS.get(row.noise, (0, 0))
        talkers = row.talkers.split()
        assert low <= len(talkers) <= high
        assert variant(row.voice) not in map(variant, talkers)


def voices(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        yield row.voice
        yield from row.talkers.split()


def variant(voice: str) -> str:
    return Speaker.parse(voice).voice.variant


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
