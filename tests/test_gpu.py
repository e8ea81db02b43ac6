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
from test_recompute import assert_equal, norm_of, results, sequences
from test_training import FOLDERS, train

from bsbimamba.scan import selective_scan
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
@pytest.mark.parametrize("by_steps", [False, True])
def test_both_directions_against_autograd(by_steps: bool, mode: Any) -> None:
    """In three pieces; the oracle in float64."""
    block = BidirectionalMambaBlock(32, chunk_size=16, use_checkpoint=mode)
    norm, x = norm_of(32), sequences(by_steps, n=300, length=70, channels=32)
    exact, exact_norm = copy.deepcopy(block).double().cuda(), copy.deepcopy(norm).double().cuda()
    expected = results(lambda x: plain_pair(exact, x, exact_norm), [exact, exact_norm], x.cuda())
    block, norm = block.cuda(), norm.cuda()
    got = results(lambda x: block(x, norm), [block, norm], x.float().cuda())
    assert_equal(got, expected, 1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_training(folder: str, precision: str, tiny_corpus: Path, tmp_path: Path) -> None:
    options = ["--steps", "6", "--device", "cuda", "--amp", precision]
    train(folder, tiny_corpus, tmp_path, *options)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line).get("train", {"loss": 0.0})
        assert torch.tensor(values["loss"]).isfinite()


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


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here")
def test_two_gpus_learn_what_one_learns(tiny_corpus: Path, tmp_path: Path) -> None:
    # Dropout draws other numbers in each process: the generator does not listen to what has it.
    options = ["--steps", "4", "--device", "cuda", "--amp", "off"]
    options += ["--loss.metric=0.05", "--loss.metric_from=1.0"]
    for processes in (1, 2):
        launched = command(tiny_corpus, tmp_path / str(processes), processes, *options)
        subprocess.run(launched, check=True)
    assert relative_difference(tmp_path / "1", tmp_path / "2", "model") < 1e-4
