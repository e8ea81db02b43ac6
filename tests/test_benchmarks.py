"""The benchmarks: what they count, and one tiny run of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved_runs import save_run
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks import loader, memory, scan, step, windows
from benchmarks.counting import PHASES, Operators, peak_bytes, saved_bytes
from benchmarks.memory import Card, largest
from benchmarks.results import report
from benchmarks.step import Candidate, networks, noise
from bsbimamba.training import precision
from bsbimamba.training.config import Data
from bsbimamba.training.trained import Trained, load_trained

CPU = torch.device("cpu")
MIB = 2**20
NARROW = {"channels": 12}
# Of the activations of 2 x 0.5 s, losses included, the least share in % that is saved by
# checkpointing, by bf16, and by both. At 6 x 2 s, where the losses weigh less, it is more.
LEAST = {"abl1": (37, 45, 64), "abl2": (41, 46, 67), "abl3": (41, 47, 68)}


@pytest.fixture(autouse=True)
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the same bytes on a CPU that is slow in bf16."""
    monkeypatch.setattr(precision, "can_do", lambda amp: True)


LINEAR, X, INPUT = nn.Linear(100, 200), torch.randn(50, 100), torch.ones(50, 100).requires_grad_()


def two_views(x: Tensor) -> Tensor:
    y = x.sin()
    return (y[:30] * y[20:]).sum()


@pytest.mark.parametrize(
    ("forward", "resident", "expected"),
    [
        (lambda: LINEAR(X), [], 4 * 50 * 100),
        (lambda: LINEAR(X), [X], 0),
        (lambda: LINEAR(X).tanh(), [X], 4 * 50 * 200),
        (lambda: INPUT @ LINEAR.weight[:100].mT[:, 7:], [INPUT], 0),  # views of a parameter
        (lambda: INPUT @ LINEAR.weight.detach().mT, [INPUT], 4 * 200 * 100),
        (lambda: two_views(INPUT), [INPUT], 4 * 50 * 100),
        (lambda: (X.sin() * X.exp()).sum(), [], 0),  # without gradients
    ],
)
def test_saved_bytes_counts_each_storage_once(
    forward: Callable[[], Tensor], resident: list[Tensor], expected: int
) -> None:
    assert saved_bytes(forward, resident) == expected


def test_peak_bytes_is_the_most_at_once() -> None:
    def run() -> Tensor:
        first = torch.zeros(3 * MIB // 4)
        total = first.sum() + torch.zeros(2 * MIB // 4).sum()
        del first
        return total + torch.zeros(MIB // 4).sum()

    assert 5 * MIB <= peak_bytes(run) <= 5 * MIB + 1000
    assert peak_bytes(lambda: None) == 0


def test_operators_count_forward_and_backward_but_no_views() -> None:
    x = torch.ones(3, requires_grad=True)
    with Operators() as counter:
        y = x.sin()
        assert y.view(3, 1).mT.shape == (1, 3)
        y.backward(torch.ones(3))
    assert counter.count == 4  # sin, ones, cos and a product


def test_step_measures_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    known = networks()
    ways = {
        Candidate("abl1", True, "bf16", labels=True): known["abl1"],
        Candidate("baseline", None, "off"): known["baseline"],
    }
    result = step.measure(ways, CPU, 1, 0.25, 1, **NARROW)
    report(result, step.table(result), tmp_path / "new" / "step.json")
    found = json.loads((tmp_path / "new" / "step.json").read_text())
    assert {"date", "commit", "versions", "device", "batch", "crop"} <= found.keys()
    assert len(found["rows"]) == len(ways)
    for row in found["rows"]:
        seconds, operators = row["seconds"]["step"], row["operators"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert row["resident_bytes"] > 0
        assert operators["step"] == sum(operators[phase] for phase in PHASES) > 100
    assert "\n| abl1, PESQ labels" in capsys.readouterr().out


@cache
def counted(name: str, mode: bool | str | None, amp: str) -> int:
    """Return the bytes that the generator's forward pass and losses save of 2 x 0.5 s."""
    learner = Candidate(name, mode, amp).learner(networks()[name], "cpu", 2, 0.5)
    sides = noise(2, 0.5)
    forward = partial(learner.losses, sides["clean"], sides["noisy"], learner.config.loss)
    forward()  # makes what is kept for later steps
    states = [part.state_dict() for part in learner.parts().values()]
    resident = [x for x in tree_leaves(states) if isinstance(x, Tensor)]
    return saved_bytes(lambda: forward()[0], [*sides.values(), *resident])


@pytest.mark.parametrize("name", LEAST)
def test_checkpointing_and_mixed_precision_save_activations(name: str) -> None:
    neither = counted(name, False, "off")
    kept = [(True, "off"), (False, "bf16"), (True, "bf16")]
    shares = [100 * (1 - counted(name, *settings) / neither) for settings in kept]
    assert all(x >= least for x, least in zip(shares, LEAST[name], strict=True)), shares


def test_scan_measures_every_candidate() -> None:
    found = scan.measure("cpu", (2, 9, 32, 4), 1, loop=True)
    assert list(found) == ["sequential loop", "mambapy pscan", "chunked", "cpu"]
    assert all(min(each[x] for x in ("forward", "both", "peak")) > 0 for each in found.values())
    assert scan.table(found, "cpu").count("\n") == 6


def test_scan_error_is_large_for_a_wrong_gradient() -> None:
    def wrong(cases: list[scan.Case]) -> list[Tensor]:
        (case,) = cases
        return scan.ours("cpu")([case._replace(B=case.B.detach() + 0 * case.B)])

    assert scan.error("wrong", wrong, "cpu", 1) > 0.5


@pytest.mark.parametrize(
    ("limit", "batch"), [(100, 0), (110, 1), (139, 3), (160, 6), (171, 7), (1100, 100)]
)
def test_largest_batch_is_predicted_and_tried(limit: int, batch: int) -> None:
    class Limited(Card):
        def peak(self, run: Callable[[], Any]) -> int | None:
            return size if (size := run()) <= self.limit else None

    assert largest(Limited(CPU, limit), lambda size: 100 + 10 * size, 6) == batch
    # A prediction that does not fit is made smaller.
    assert 90 <= largest(Limited(CPU, 10_000), lambda size: size**2, 6) <= 100


def test_memory_measures_training_validation_and_the_largest_batch() -> None:
    chosen = {"abl1": networks()["abl1"]}
    for limit in (40 * MIB, 1000):
        result = memory.measure(Card(CPU, limit), chosen, 1, 0.25, 1.0, **NARROW)
        (row,) = result["rows"]
        fits = limit > 1000
        assert [bool(row[x] and row[x] < limit) for x in ("train", "validate")] == [fits, fits]
        assert (row["largest"]["checkpointed"] >= row["largest"]["not"] >= 1) == fits
        assert memory.table(result).count("does not fit") == 2 * (not fits)


@pytest.mark.usefixtures("own_index")
def test_loader_measures_every_format(tmp_path: Path) -> None:
    root = loader.make_corpus(tmp_path / "made", 8, 0.5)
    result = loader.measure(root, 0, 1, 0.25, seconds=0.05)
    rates = result["crops_per_second"]
    assert list(rates) == ["wav", "flac", "opus", "decoded", "decoded, every augmentation"]
    assert all(0 < x["min"] <= x["median"] <= x["max"] for x in rates.values())
    assert loader.table(result).count("\n") == 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Trained:
    found = load_trained(save_run(tmp_path_factory.mktemp("model") / "run"))
    config = replace(found.config, data=Data(source="pairs", root=str(tiny_corpus)))
    return replace(found, config=config)


@pytest.mark.usefixtures("own_index")
def test_windows_differ_less_with_more_context(trained: Trained) -> None:
    recordings = windows.long_recordings(trained, 4.0, 1)
    for place, clean in recordings[0].utterances:
        assert np.corrcoef(recordings[0].noisy[place], clean)[0, 1] > 0.5
    rows = windows.measure(trained, recordings, [0, 0.2, 50], 1.0, 0.048)
    none, some, whole, hard = rows
    # With a context that exceeds the recording, the first window is the whole.
    assert whole["residual"] < -130  # of rounding
    assert -130 < some["residual"] < none["residual"] < 0
    assert whole["worst_pesq"] < none["worst_pesq"]
    assert (hard["way"], hard["extra"]) == (windows.HARD, 0)
    assert some["extra"] == pytest.approx((0.4 + 0.048) / 1.0, rel=0.02)
    assert all(math.isfinite(row["pesq"]) for row in rows)
    assert windows.table(rows).count("\n") == 6
