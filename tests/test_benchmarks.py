"""The benchmarks: what they count, and one tiny run of each."""

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import gpu, measuring, scan, step
from benchmarks.measuring import MIB, PHASES, Operators
from benchmarks.step import Candidate, Measured
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.training import precision
from bsbimamba.training.graph import Replayed

# Bytes that a batch as configured (6 x 2 s) saves for the backward pass, losses included: without
# checkpointing in fp32, and with it in bf16.
SAVED = {
    "abl1": (1_346_533_296, 373_009_400),
    "abl2": (2_513_046_288, 635_207_192),
    "abl3": (2_497_459_488, 626_237_840),
}
# Operators that a step in fp32 without a discriminator dispatches, views aside: of all phases, and
# of the optimizer. In one piece, as on a GPU. These numbers may only fall.
OPERATORS = {
    "abl1": (336, 67),
    "abl2": (400, 67),
    "abl3": (400, 67),
    "baseline": (459, 67),
    "bsrnn_bi": (437, 67),
    "lstm_dualpath": (347, 67),
}


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
    assert measuring.saved_bytes(forward, resident) == expected


def test_operators_count_forward_and_backward_but_no_views() -> None:
    x = torch.ones(3, requires_grad=True)
    with Operators() as counter:
        y = x.sin()
        assert y.view(3, 1).mT.shape == (1, 3)
        y.backward(torch.ones(3))
    assert counter.count == 4  # sin, ones, cos and a product
    assert counter.bytes == 4 * 3 * (2 + 1 + 2 + 3)


def test_operators_count_products_of_every_kind() -> None:
    x = torch.randn(2, 7, 5, requires_grad=True)
    weight, kernel = torch.randn(5, 4, requires_grad=True), torch.randn(6, 7, 3)
    with Operators() as counter:
        (x @ weight).sum().backward()  # and two as large backward
        torch.conv1d(x.detach(), kernel)
        x.exp()
    assert counter.operations == 3 * 2 * 14 * 5 * 4 + 2 * 2 * 6 * 7 * 3 * 3


def test_launches_count_for_the_phase_that_they_are_in() -> None:
    names = ["cuLaunchKernelEx", "end of phase: data", "aten::add", "cudaLaunchKernel"]
    names += ["cudaGraphLaunch", "end of phase: forward", "cudaMemcpyAsync", "cudaLaunchKernel"]
    names += ["end of phase: data", "cudaLaunchKernel"]
    expected = dict.fromkeys(PHASES, 0) | {"data": 2, "forward": 2, "step": 5}
    assert measuring.launches_among(names) == expected


def test_step_measures_every_figure() -> None:
    ways = [Candidate("abl1", True, "bf16", "pesq"), Candidate("looped", amp="bf16")]
    rows = step.measure(ways, "cpu", 1, 0.25, 1)
    for row in rows:
        assert 0 < row["min (ms)"] <= row["median (ms)"] <= row["max (ms)"]
        assert row["saved (MiB)"] > 0
        assert row["operators"] > 100
    names = [line.split()[1] for line in measuring.table(rows).splitlines()]
    assert names == ["network", "------:", "abl1", "looped"]


@pytest.mark.parametrize("name", SAVED)
def test_checkpointing_and_mixed_precision_save_activations(name: str) -> None:
    """At least 70 % in the default configuration, counted on tensors without data."""
    config = step.networks()[name][1]
    saved = []
    for checkpoint, amp in ((False, "off"), (True, "bf16")):
        run = Measured(Candidate(name, checkpoint, amp, labels="none"), "cpu", 1, 0.25)
        run.saved_bytes()  # makes what is kept for later steps
        with FakeTensorMode(allow_non_fake_inputs=True):
            size = config.data.batch_size, round(SAMPLE_RATE * config.data.crop_seconds)
            run.batch = {side: torch.empty(size) for side in ("clean", "noisy")}
            saved.append(run.saved_bytes())
    assert tuple(saved) == SAVED[name]
    assert saved[1] <= 0.3 * saved[0]


@pytest.mark.parametrize("name", OPERATORS)
def test_step_dispatches_no_more_operators_than_before(name: str) -> None:
    run = Measured(Candidate(name, amp="off", labels="none"), "cpu", 2, 0.256)
    run.step()
    with Operators() as counter:
        counts = [("", 0)]  # at the end of each phase
        run.learner.mark = lambda phase: counts.append((phase, counter.count))
        run.step()
    growth = [(phase, n - before) for (_, before), (phase, n) in pairwise(counts)]
    most, of_optimizer = OPERATORS[name]
    assert sum(n for _, n in growth) <= most
    assert sum(n for phase, n in growth if phase == "optimizer") <= of_optimizer


def test_scan_measures_every_candidate() -> None:
    rows = list(scan.measure("cpu", "small", (2, 9, 32, 4), 1))
    names = ["sequential loop", "mambapy pscan", "chunked", "cpu"]
    assert [(row["scan"], row["of"]) for row in rows] == [(x, "small, 2x9x32x4") for x in names]
    figures = ("forward (ms)", "with backward (ms)")
    assert all(min(row[x] for x in figures) > 0 for row in rows)
    assert rows[-1]["with backward of ours"] == 1


def test_scan_error_is_large_for_a_wrong_gradient() -> None:
    def wrong(B: Tensor, **case: Tensor) -> Tensor:
        return scan.ours("cpu")(**case, B=B.detach() + 0 * B)

    assert scan.error("wrong", wrong, "cpu", 1) > 0.5
    for name, each in scan.candidates("cpu").items():
        assert scan.error(name, each, "cpu", 2) < 1e-4


@pytest.mark.parametrize("largest", [0, 1, 2, 45, 300])
def test_gpu_finds_the_largest_batch_that_fits(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def measured(way: Candidate, device: str, batch: int, crop: float) -> MagicMock:
        batches.append(batch)
        return MagicMock()

    monkeypatch.setattr(gpu, "Measured", measured)

    def reserved(run: Callable[[], object], device: str, limit: int) -> int | None:
        run()
        return batches[-1] if batches[-1] <= limit else None  # a byte a crop

    monkeypatch.setattr(gpu, "reserved", reserved)
    (row,) = gpu.memory("abl1", "cpu", gpu.Sizes(limit=largest))
    assert row["largest batch up to 256"] == min(largest // 2 * 2, 256)
    assert row["reserved (MiB)"] == (6 / MIB if largest >= 6 else "too much")


@pytest.mark.slow
def test_gpu_writes_every_table_of_what_it_measured() -> None:
    rows, failed = gpu.measure("cpu", gpu.SMALL._replace(batches=(1,)), 6)
    gpu.complete(rows, peaks := gpu.measure_peaks("cpu"))
    titles = [title for part, (title, _) in gpu.PARTS.items()]
    titles = [x for x in titles if x not in ("Launches of kernels", "12 GB")]
    assert re.findall("^## (.+)$", gpu.page(rows, "cpu", peaks), re.M) == titles
    assert not failed
    ways = [(x["labels"], x["compile"]) for x in rows["labels"]]
    assert ways == [("constant", "off"), *((x, "graph") for x in ("constant", "torch", "pesq"))]
    for row in rows["steps"]:
        assert min(row["% of peak traffic"], row["% of peak products"]) > 0


def test_gpu_leaves_out_what_fails_and_what_there_is_no_time_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def plan(*_: Any) -> list[tuple]:
        ways = (Candidate("abl1", labels="none", compile=x) for x in ("graph", "off"))
        return [("steps", "", partial(step.measure, [way], "cpu", 1, 0.25, 1)) for way in ways]

    def call(self: Replayed, *arguments: Any) -> Any:
        self.reason = "no driver"
        return self._function(*arguments)

    monkeypatch.setattr(gpu, "plan", plan)
    monkeypatch.setattr(Replayed, "__call__", call)
    rows, failed = gpu.measure("cpu", gpu.SMALL, 6)
    assert failed
    assert [row["compile"] for row in rows["steps"]] == ["off"]
    assert capsys.readouterr().err.count("left out: there is no CUDA graph: no driver") == 1
    rows, failed = gpu.measure("cpu", gpu.SMALL, 0)
    assert not failed
    assert capsys.readouterr().err.count("no time left") == 2
    assert "##" not in gpu.page(rows, "cpu", {"traffic (GB)": 1.0, "products (TFLOP)": 1.0})


def test_shares_of_a_graph_are_of_the_operators_counted_without_it() -> None:
    launches = dict.fromkeys(PHASES, 10) | {"step": 60}
    about = {"network": "abl1", "batch": 6, "labels": "none", "launches": launches}
    rows: gpu.Rows = {part: [] for part in gpu.PARTS}
    plain = {**about, "compile": "off", "median (ms)": 10.0, "traffic (GB)": 5.0}
    graph = {**about, "compile": "graph", "median (ms)": 5.0}
    rows["steps"] = [plain, graph]
    gpu.complete(rows, {"traffic (GB)": 1000.0, "products (TFLOP)": 1.0})
    assert (plain["% of peak traffic"], graph["% of peak traffic"]) == (50.0, 100.0)
    assert [row["forward"] for row in rows["launches"]] == [10]
