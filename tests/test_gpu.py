"""What needs a CUDA device: `make test-gpu`. Skipped where there is none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from test_networks import EVERYTHING, small, snr
from test_scan import assert_close, make_arguments, run
from test_training import FOLDERS, train

from scan import selective_scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 31, 64, 251, 1000])
def test_scan_against_the_oracle(length: int, reverse: bool) -> None:
    arguments = make_arguments(2, length, 70, 5)
    expected = run(arguments, torch.float64, "reference", reverse=reverse)
    on_device = {name: x.cuda() for name, x in arguments.items()}
    got = run(on_device, torch.float32, "chunked", reverse=reverse)
    assert_close({name: x.cpu() for name, x in got.items()}, expected, torch.float32)


def test_auto_finds_a_backend_and_the_cpu_one_says_why_not() -> None:
    arguments = {name: x.float().cuda() for name, x in make_arguments(1, 9, 8, 3).items()}
    assert selective_scan(**arguments).device.type == "cuda"
    with pytest.raises(ValueError, match="on a CPU"):
        selective_scan(**arguments, backend="cpu")


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_network_says_the_same_as_on_a_cpu(name: str) -> None:
    net = small(name)
    noisy = torch.randn(2, 8000)
    expected = net.enhance(noisy)
    on_device = copy.deepcopy(net).cuda()
    assert snr(on_device.enhance(noisy.cuda()).cpu(), expected) > 60
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert snr(on_device.enhance(noisy.cuda()).cpu(), expected) > 30


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_training(folder: str, precision: str, tiny_corpus: Path, tmp_path: Path) -> None:
    options = ["--max-steps", "6", "--device", "cuda", "--amp", precision]
    train(folder, tiny_corpus, tmp_path, *options)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line).get("train", {"loss": 0.0})
        assert torch.tensor(values["loss"]).isfinite()
