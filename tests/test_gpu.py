"""What needs a CUDA device: `make test-gpu`. Skipped where there is none."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_path import plain_pair
from processes import command, relative_difference
from recordings import voiced
from scan_cases import (
    NAMES,
    assert_close,
    check_extreme_steps,
    check_nan,
    compare_convolution,
    make_arguments,
    make_both,
    run,
    run_both,
)
from test_networks import EVERYTHING, small, snr
from test_recompute import assert_equal, norm_of, results
from test_training import FOLDERS, train

from benchmarks.step import Candidate, Measured
from bsbimamba.network.bands import NORMS
from bsbimamba.recompute.rows import Along, along_bands, along_time
from bsbimamba.scan import selective_scan
from bsbimamba.training.graph import Replayed
from bsbimamba.training.pesq import label_on_device
from real_mamba_optimized import BidirectionalMambaBlock

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


def on_gpu(arguments: dict) -> dict:
    return {name: x.cuda() for name, x in arguments.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 31, 63, 64, 65, 251, 1000])
@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_scan_against_the_oracle(backend: str, length: int, reverse: bool) -> None:
    arguments = make_arguments(2, length, 70, 5)
    expected = run(arguments, torch.float64, "reference", reverse=reverse)
    got = run(on_gpu(arguments), torch.float32, backend, reverse=reverse)
    assert_close(got, expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 251, 384, 16), (40, 31, 384, 16), (3, 100, 65, 17)])
def test_both_directions_in_one_launch(shape: tuple, dtype: torch.dtype) -> None:
    arguments = {k: v.to(dtype).double() for k, v in make_both(*shape).items()}
    expected = run_both(on_gpu(arguments), torch.float64, "chunked")
    got = run_both(on_gpu(arguments), dtype, "triton")
    assert_close(got, expected, dtype)
    again = run_both(on_gpu(arguments), dtype, "triton")
    assert all(torch.equal(got[name], again[name]) for name in got)


@pytest.mark.parametrize("delta", [-1e30, -1e4, 1e4, 1e30])
def test_extreme_step_sizes_give_no_nan(delta: float) -> None:
    check_extreme_steps("triton", delta, "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_that_goes_in_comes_out(name: str) -> None:
    check_nan("triton", name, device="cuda")


def test_more_than_two_thousand_million_elements() -> None:
    """Offsets beyond 2^31, forward: two arrays of 4.3 GB, in float16."""
    length, d = 2**21 + 64, 1024
    u = torch.full((1, length, d), 1.0, dtype=torch.float16, device="cuda")
    ones = torch.ones(1, length, 1, dtype=torch.float16, device="cuda")
    A = torch.full((d, 1), -1.0, device="cuda")
    out = selective_scan(u, u, A, ones, ones, backend="triton")
    # A geometric series: 1 / (1 - exp(-1)), everywhere but at the start.
    assert torch.allclose(out[0, -64:].float(), torch.tensor(1.582, device="cuda"), atol=2e-3)
    assert out[0, 2**20].float().allclose(torch.tensor(1.582, device="cuda"), atol=2e-3)


@pytest.mark.parametrize("length", [1, 3, 64, 251])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolution(length: int, dtype: torch.dtype) -> None:
    for reverse in (False, True):
        compare_convolution(
            "triton", 3, length, 70, reverse=reverse, directions=2, dtype=dtype, device="cuda"
        )


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_network_says_the_same_as_on_a_cpu(name: str) -> None:
    net = small(name)
    noisy = torch.randn(2, 8000)
    expected = net.enhance(noisy)
    on_device = copy.deepcopy(net).cuda()
    assert snr(on_device.enhance(noisy.cuda()).cpu(), expected) > 60
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert snr(on_device.enhance(noisy.cuda()).cpu(), expected) > 30


@pytest.mark.parametrize("mode", [False, True, "full"])
@pytest.mark.parametrize("along", [along_time, along_bands])
@pytest.mark.parametrize("kind", NORMS)
def test_both_directions_against_autograd(kind: str, along: Along, mode: Any) -> None:
    """The oracle in float64."""
    block = BidirectionalMambaBlock(32, chunk_size=16, use_checkpoint=mode)
    norm, x = norm_of(32, kind), torch.randn(31, 10, 70, 32, dtype=torch.float64)
    exact, exact_norm = copy.deepcopy(block).double().cuda(), copy.deepcopy(norm).double().cuda()
    expected = results(
        lambda x: plain_pair(exact, x, exact_norm, along), [exact, exact_norm], x.cuda()
    )
    block, norm = block.cuda(), norm.cuda()
    got = results(lambda x: block(x, norm, along), [block, norm], x.float().cuda())
    assert_equal(got, expected, 1e-4)


def test_labels_are_those_of_the_cpu_and_the_host_waits_for_nothing() -> None:
    pairs = torch.stack(voiced(0, 0.05))
    on_device = pairs.cuda()
    label_on_device(on_device)  # makes the tables
    torch.cuda.set_sync_debug_mode("error")
    try:
        labels = label_on_device(on_device)()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(labels.cpu(), label_on_device(pairs)(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_training(folder: str, precision: str, tiny_corpus: Path, tmp_path: Path) -> None:
    options = ["--steps", "6", "--device", "cuda", "--amp", precision]
    train(folder, tiny_corpus, tmp_path, *options)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line).get("train", {"loss": 0.0})
        assert torch.tensor(values["loss"]).isfinite()


@pytest.mark.parametrize("labels", ["none", "torch"])
def test_a_step_as_a_graph_has_few_launches(labels: str) -> None:
    ways = (Candidate("abl3", labels=labels, compile=x) for x in ("off", "graph"))
    runs = (Measured(way, "cuda", 2, 0.5, label_on_device) for way in ways)
    eager, graph = (run.counts()["launches"] for run in runs)
    assert eager["forward"] > 50
    assert graph["step"] - graph["labels"] < eager["step"] / 10


@pytest.mark.parametrize("precision", ["bf16", "fp16", "off"])
def test_a_resumed_run_is_close_to_the_uninterrupted_one(
    precision: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    """Not to the bit: sums on a GPU have no fixed order."""
    options = ["--device", "cuda", "--amp", precision, "--optim.fall=0", "--steps"]
    train("abl3", tiny_corpus, tmp_path / "whole", *options, "4")
    for step in ("1", "3", "4"):
        train("abl3", tiny_corpus, tmp_path / "parts", *options, step)
    assert relative_difference(tmp_path / "whole", tmp_path / "parts", "model") < 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16", "off"])
@pytest.mark.parametrize("folder", ["abl3", "baseline"])
def test_graph_learns_what_plain_steps_learn(
    folder: str, precision: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    """With a discriminator, in a run in which it is used from the seventh step on."""
    options = ["--device", "cuda", "--amp", precision, "--steps", "12", "--loss.metric=0.05"]
    options += ["--loss.metric-from=0.5", "--run.compile"]
    for way in ("graph", "off"):
        train(folder, tiny_corpus, tmp_path / way, *options, way)
    assert relative_difference(tmp_path / "graph", tmp_path / "off", "model") < 1e-3


def test_graph_takes_changed_inputs_and_random_numbers() -> None:
    """A dropout draws from the seed of the call, as without a graph."""
    state = torch.zeros(1000, device="cuda")

    def function(x: torch.Tensor) -> torch.Tensor:
        return state.add_(torch.nn.functional.dropout(x, 0.5)).clone()

    def results(call: Any) -> list[torch.Tensor]:
        state.zero_()
        found = []
        for seed in range(8):
            torch.manual_seed(seed)
            found.append(call(torch.full((1000,), float(seed + 1), device="cuda")).clone())
        return found

    expected, got = results(function), results(Replayed(function))
    assert all(torch.equal(x, y) for x, y in zip(expected, got, strict=True))


def test_what_cannot_be_captured_is_computed_plainly(caplog: pytest.LogCaptureFixture) -> None:
    replayed = Replayed(lambda x: x + float(x.sum()))  # reads a number on the host
    for _ in range(6):
        assert float(replayed(torch.ones(1, device="cuda"))) == 2
    assert caplog.text.count("without a CUDA graph") == 1
    assert replayed.reason


def test_step_reads_nothing_on_the_host() -> None:
    step = Measured(Candidate("abl3", labels="torch"), "cuda", 2, 0.5, label_on_device).step
    for _ in range(3):  # plans and constants are made
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here")
def test_two_gpus_learn_what_one_learns(tiny_corpus: Path, tmp_path: Path) -> None:
    # Dropout draws other numbers in each process: the generator does not listen to what has it.
    options = ["--steps", "4", "--device", "cuda", "--amp", "off"]
    options += ["--loss.metric=0.05", "--loss.metric_from=1.0"]
    for processes in (1, 2):
        launched = command(tiny_corpus, tmp_path / str(processes), processes, *options)
        subprocess.run(launched, check=True)
    assert relative_difference(tmp_path / "1", tmp_path / "2", "model") < 1e-4
