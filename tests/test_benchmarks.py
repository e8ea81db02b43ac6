"""The benchmarks of scan, memory, loader and windows, each run once at a tiny size."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from saved_runs import save_run

from benchmarks import loader, memory, scan, windows
from benchmarks.memory import Card, largest
from benchmarks.results import markdown
from benchmarks.step import networks
from training.config import Data
from training.trained import Trained, load_trained

CPU = torch.device("cpu")
MIB = 2**20


def test_markdown_aligns_columns() -> None:
    table = markdown(["", "ms"], [["a", "1.0"], ["long", "22.5"]])
    assert table == "|      |   ms |\n| ---- | ---: |\n| a    |  1.0 |\n| long | 22.5 |\n"
    assert markdown(["", "n"], [["a", "1"]]) == "|     |   n |\n| --- | --: |\n| a   |   1 |\n"


# The scan


def test_scan_measures_every_candidate() -> None:
    found = scan.measure("cpu", (2, 9, 32, 4), 1, loop=True)
    assert list(found) == ["sequential loop", "mambapy pscan", "chunked", "cpu"]
    for each in found.values():
        assert each["forward"] > 0
        assert each["both"] > 0
        assert each["peak"] > 0
    assert scan.table(found, "cpu").count("\n") == 6
    assert "sequential loop" not in scan.measure("cpu", (1, 3, 16, 2), 1, loop=False)


@pytest.mark.parametrize("name", ["mambapy pscan", "chunked", "cpu"])
@pytest.mark.parametrize("directions", [1, 2])
def test_scan_error_is_small_for_every_candidate(name: str, directions: int) -> None:
    assert scan.error(name, scan.candidates("cpu")[name], "cpu", directions) < 1e-4


def test_scan_error_is_large_for_a_wrong_gradient() -> None:
    def wrong(cases: list[scan.Case]) -> list[torch.Tensor]:
        (case,) = cases
        return scan.ours("cpu")([case._replace(B=case.B.detach() + 0 * case.B)])

    assert scan.error("wrong", wrong, "cpu", 1) > 0.5


# Memory


class Limit:
    """A card whose runs return what they take; notes how many were tried."""

    def __init__(self, limit: int) -> None:
        self.limit, self.tried = limit, 0

    def peak(self, run: Callable[[], int]) -> int | None:
        self.tried += 1
        taken = run()
        return taken if taken <= self.limit else None


@pytest.mark.parametrize(
    ("limit", "batch"), [(100, 0), (110, 1), (139, 3), (160, 6), (171, 7), (1100, 100)]
)
def test_largest_batch_is_predicted_and_tried(limit: int, batch: int) -> None:
    card = Limit(limit)
    assert largest(cast(Card, card), lambda size: 100 + 10 * size, 6) == batch
    assert card.tried <= 9


def test_largest_batch_shrinks_where_the_prediction_does_not_fit() -> None:
    found = largest(cast(Card, Limit(10_000)), lambda size: size**2, 6)
    assert 90 <= found <= 100


def small(limit: int, *names: str) -> dict:
    chosen = {name: networks()[name] for name in names}
    result = memory.measure(Card(CPU, limit), chosen, 1, 0.25, 1.0, channels=12)
    return json.loads(json.dumps(result))


def test_memory_measures_training_validation_and_the_largest_batch() -> None:
    result = small(40 * MIB, "abl1", "baseline")
    first, second = result["rows"]
    assert first["largest"].keys() == {"checkpointed", "not"}
    assert first["largest"]["checkpointed"] >= first["largest"]["not"] >= 1
    assert second["largest"].keys() == {"not"}
    for row in (first, second):
        assert 0 < row["train"] < 40 * MIB
        assert 0 < row["validate"] < 40 * MIB
    shown = memory.table(result)
    assert shown.count("\n| ") == 3
    assert "train 1 x 0.25 s (MiB)" in shown


def test_memory_says_what_does_not_fit() -> None:
    result = small(1000, "baseline")
    (row,) = result["rows"]
    assert row["train"] is row["validate"] is None
    assert row["largest"] == {"not": 0}
    assert memory.table(result).count("does not fit") == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_memory_needs_a_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["memory"])
    assert memory.main() == 2
    assert "CUDA" in capsys.readouterr().err


# The loader


@pytest.mark.usefixtures("own_index")
def test_loader_measures_every_format(tmp_path: Path) -> None:
    root = loader.make_corpus(tmp_path / "made", 8, 0.5)
    result = json.loads(json.dumps(loader.measure(root, 0, 1, 0.25, seconds=0.05)))
    rates = result["crops_per_second"]
    assert list(rates) == ["wav", "flac", "opus", "decoded", "decoded, every augmentation"]
    assert all(0 < x["min"] <= x["median"] <= x["max"] for x in rates.values())
    assert loader.table(result).count("\n") == 7


# Windows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Trained:
    found = load_trained(save_run(tmp_path_factory.mktemp("model") / "run"))
    config = replace(found.config, data=Data(source="pairs", root=str(tiny_corpus)))
    return replace(found, config=config)


@pytest.mark.usefixtures("own_index")
def test_windows_join_utterances(trained: Trained) -> None:
    one, _ = windows.long_recordings(trained, 9.0, 2)
    assert len(one.noisy) >= 9 * 16_000
    assert sum(len(clean) for _, clean in one.utterances) == len(one.noisy)
    for place, clean in one.utterances:
        assert len(one.noisy[place]) == len(clean)
        assert np.corrcoef(one.noisy[place], clean)[0, 1] > 0.5


@pytest.mark.usefixtures("own_index")
def test_windows_differ_less_with_more_context(trained: Trained) -> None:
    recordings = windows.long_recordings(trained, 4.0, 1)
    rows = windows.measure(trained, recordings, [0, 0.2, 50], 1.0, 0.048)
    none, some, whole, hard = rows
    # A context beyond the recording's ends makes the first window all of it.
    assert whole["residual"] < -150  # of rounding
    assert -150 < some["residual"] < none["residual"] < 0
    assert whole["worst_pesq"] < none["worst_pesq"]
    assert (hard["way"], hard["extra"]) == (windows.HARD, 0)
    assert some["extra"] == pytest.approx((0.4 + 0.048) / 1.0, rel=0.02)
    assert all(math.isfinite(row["pesq"]) for row in rows)
    assert windows.table(rows).count("\n") == 6
