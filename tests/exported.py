"""A small network's run and its ONNX model, made once for all tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from saved_runs import change, load, save_run
from torch import nn

from bandsplit.net import BandSplitNet
from bandsplit.stft import HOP
from data.audio import SAMPLE_RATE
from enhancement.windows import Windows
from tools import export, onnx_check, onnx_graph
from training.checkpoint import BEST
from training.trained import load_trained

# Two seconds are two windows and more, and a check takes no minute.
SHORT = Windows(0.8, 0.16, 0.128)


def lively(network: BandSplitNet) -> BandSplitNet:
    """The network with a filter that says something: an untrained one returns its input."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("weight", "bias") and parameter.dim() == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        for decoder in network.decoder.decoders:
            assert isinstance(decoder, nn.Module)
            for parameter in decoder.output.parameters():  # type: ignore[union-attr]
                parameter.mul_(10)
    return network.eval().requires_grad_(False)


def save_lively_run(folder: Path) -> Path:
    """A run folder, always of the same small network."""
    run = save_run(folder)
    network = lively(load_trained(run).network)
    average = load(run / BEST)["ema"] | {"model": network.state_dict()}
    change(run / BEST, ema=average)
    return run


@cache
def exported_run() -> tuple[BandSplitNet, bytes]:
    """The network of that run, and its ONNX model."""
    with TemporaryDirectory() as folder:
        network = load_trained(save_lively_run(Path(folder))).network
    return network, onnx_graph.onnx_model(network)


@cache
def checked(frames: int) -> dict[str, Any]:
    """What comparing the two finds."""
    return onnx_check.compare(*exported_run(), frames)


def prepare(patch: pytest.MonkeyPatch) -> None:
    """Let `tools.export` take that model and its check as they are, and cut signals short."""
    frames = SHORT.length * SAMPLE_RATE / HOP + 1
    found = checked(round(frames))
    patch.setattr(onnx_graph, "onnx_model", lambda network: exported_run()[1])
    patch.setattr(onnx_check, "compare", lambda network, content, frames: found)
    patch.setattr(export, "Windows", lambda: SHORT)
    patch.setattr("enhancement.folder.Windows", lambda: SHORT)
