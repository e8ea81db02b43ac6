"""Real-time factors of every network by PyTorch and, exported, by onnxruntime, side by side.

    python -m benchmarks.export [--seconds 8] [--rounds 5] [--threads 1 2] [--only abl3 baseline]

Both do the whole way from waveform to waveform; the transforms around the network are PyTorch's in
both. Rounds alternate. Prints a table for docs/export.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from bandsplit.net import BandSplitNet, loudness
from bandsplit.stft import istft, stft
from benchmarks.candidates import networks
from benchmarks.results import described, markdown, where
from benchmarks.side_by_side import timed
from data.audio import SAMPLE_RATE
from tools.onnx_check import feed, session_of
from tools.onnx_graph import onnx_model

_HEAD = ("network", "threads", "PyTorch", "onnxruntime", "model.safetensors", "model.onnx")


def main() -> None:
    names = [name for name in networks() if name != "looped"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the signal")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NETWORK")
    options = parser.parse_args()
    noisy = torch.randn(1, round(options.seconds * SAMPLE_RATE))
    rows = []
    for name in options.only:
        torch.manual_seed(0)
        network = networks()[name].made().eval().requires_grad_(False)
        rows += list(_rows(name, network, noisy, options.threads, options.rounds))
    print(markdown(_HEAD, rows))
    print(
        f"{where(described('export', torch.device('cpu')))}; onnxruntime {version('onnxruntime')}"
    )
    print(f"{options.seconds:g} s of noise, median of {options.rounds} rounds")


def _rows(
    name: str, network: BandSplitNet, noisy: Tensor, threads: list[int], rounds: int
) -> Iterator[list[str]]:
    content = onnx_model(network)
    sizes = [sum(4 * p.numel() for p in network.parameters()), len(content)]
    megabytes = [f"{size / 1e6:.1f} MB" for size in sizes]
    for count in threads:
        torch.set_num_threads(count)
        runs: dict[str, Callable] = {
            "PyTorch": partial(network.enhance, noisy),
            "onnxruntime": partial(_enhance, network, session_of(content, count), noisy),
        }
        times = timed(runs, rounds, "cpu")
        factors = [f"{times[run] * SAMPLE_RATE / noisy.shape[-1]:.3f}" for run in runs]
        yield [name, str(count), *factors, *megabytes]


def _enhance(network: BandSplitNet, session: Any, noisy: Tensor) -> Tensor:
    """`BandSplitNet.enhance`, the network by onnxruntime. (b, s) to the same."""
    scale = loudness(noisy)
    inputs = feed(network, stft(noisy / scale))
    filtered = torch.from_numpy(session.run(None, inputs)[0])
    return istft(torch.view_as_complex(filtered), noisy.shape[-1]) * scale


if __name__ == "__main__":
    main()
