"""The benchmarks: what they count, and one tiny run of each."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_runs import save_run
from torch import Tensor, nn

from benchmarks import loader, memory, scan, step, windows
from benchmarks.counting import PHASES, Operators, peak_bytes, saved_bytes
from benchmarks.results import report, table
from benchmarks.step import Candidate, ConstantPool, Measured, noise
from bsbimamba.training import precision
from bsbimamba.training.config import Data
from bsbimamba.training.trained import load_trained

MIB = 2**20
# Of the activations of 2 x 0.5 s, losses included, the least share in % that is saved by
# checkpointing, by bf16, and by both. At 6 x 2 s, where the losses weigh less, it is more.
LEAST = {"abl1": (37, 45, 64), "abl2": (41, 46, 67), "abl3": (41, 47, 68)}


@pytest.fixture(autouse=True)
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the same bytes on a CPU that is slow in bf16."""
    monkeypatch.setattr(precision, "can_do", lambda amp: True)


LINEAR, X, INPUT = nn.Linear(100, 200), torch.randn(50, 100), torch.ones(50, 100).requires_grad_()


@pytest.mark.parametrize(
    ("forward", "resident", "expected"),
    [
        (lambda: LINEAR(X), [], 4 * 50 * 100),
        (lambda: LINEAR(X), [X], 0),
        (lambda: INPUT @ LINEAR.weight[:100].mT[:, 7:], [INPUT], 0),  # views of a parameter
        (lambda: INPUT @ LINEAR.weight.detach().mT, [INPUT], 4 * 200 * 100),
        (lambda: (y := INPUT.sin())[:30] * y[20:], [INPUT], 4 * 50 * 100),
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
    ways = [Candidate("abl1", True, "bf16", labels=True), Candidate("baseline", None, "off")]
    rows = step.measure(ways, "cpu", 1, 0.25, 1)
    path = tmp_path / "new" / "step.json"
    report(table(step.columns(rows)), path, torch.device("cpu"), rows=rows)
    found = json.loads(path.read_text())
    assert {"date", "commit", "torch", "device"} <= found.keys()
    assert found["rows"] == rows
    for row in rows:
        seconds, operators = row["seconds"]["step"], row["operators"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert row["resident_bytes"] > 0
        assert operators["step"] == sum(operators[phase] for phase in PHASES) > 100
    assert "\nabl1, PESQ labels" in capsys.readouterr().out


@pytest.mark.parametrize("name", LEAST)
def test_checkpointing_and_mixed_precision_save_activations(name: str) -> None:
    saved = []
    for checkpoint, amp in ((False, "off"), (True, "off"), (False, "bf16"), (True, "bf16")):
        learner = Candidate(name, checkpoint, amp).learner("cpu", 2, 0.5, ConstantPool(1))
        run = Measured(learner, noise(2, 0.5))
        run.saved_bytes()  # makes what is kept for later steps
        saved.append(run.saved_bytes())
    shares = [100 * (1 - each / saved[0]) for each in saved[1:]]
    assert all(x >= least for x, least in zip(shares, LEAST[name], strict=True)), shares


def test_scan_measures_every_candidate() -> None:
    found = scan.measure("cpu", (2, 9, 32, 4), 1, loop=True)
    assert list(found) == ["sequential loop", "mambapy pscan", "chunked", "cpu"]
    assert all(min(each[x] for x in ("forward", "both", "peak")) > 0 for each in found.values())
    assert [row["both of ours"] for row in scan.columns(found, "cpu")][-1] == 1


def test_scan_error_is_large_for_a_wrong_gradient() -> None:
    def wrong(cases: list[scan.Case]) -> list[Tensor]:
        return scan.ours("cpu")([cases[0] | {"B": cases[0]["B"].detach() + 0 * cases[0]["B"]}])

    assert scan.error("wrong", wrong, "cpu", 1) > 0.5
    for name, each in scan.candidates("cpu", loop=True).items():
        assert scan.error(name, each, "cpu", 2) < 1e-4


@pytest.mark.parametrize("largest", [0, 1, 5, 6, 11, 12, 40, 1000])
def test_largest_batch_is_within_5_percent(largest: int) -> None:
    assert 0.95 * largest <= memory.largest_batch(lambda size: size <= largest, 6) <= largest


@pytest.mark.parametrize("limit", [100 * MIB, 1000])
def test_memory_measures_training_validation_and_the_largest_batch(limit: int) -> None:
    row = memory.measure("abl1", "cpu", limit, 1, 0.25, 0.5)
    fits = limit > 1000
    assert [bool(row[x] and row[x] < limit) for x in ("train", "validate")] == [fits, fits]
    assert (row["largest"] >= 1) == fits


@pytest.mark.usefixtures("own_index")
def test_loader_measures_every_format(tiny_corpus: Path) -> None:
    rates = loader.measure(tiny_corpus, 0, 1, seconds=0.05)
    assert list(rates) == ["wav", "flac", "opus", "decoded", "decoded, every augmentation"]
    assert all(0 < x["min"] <= x["median"] <= x["max"] for x in rates.values())


@pytest.mark.usefixtures("own_index")
def test_windows_differ_less_with_more_context(tiny_corpus: Path, tmp_path: Path) -> None:
    trained = load_trained(save_run(tmp_path / "run"))
    config = replace(trained.config, data=Data(source="pairs", root=str(tiny_corpus)))
    recordings = windows.long_recordings(replace(trained, config=config), 4.0, 1)
    clean = np.concatenate([clean for _, clean in recordings[0].utterances])
    noisy = windows.scores(recordings[0], recordings[0].noisy)
    assert (windows.scores(recordings[0], clean) > noisy + 1).all()
    none, some, whole = windows.measure(trained, recordings, [0, 0.2, 50], 1.0)
    # With a context that exceeds the recording, the first window is the whole.
    assert whole["residual"] < -130  # of rounding
    assert -130 < some["residual"] < none["residual"] < 0
    assert some["extra"] == pytest.approx((0.4 + 0.512) / 1.0, rel=0.02)
    assert none["largest change"] < 0.01
