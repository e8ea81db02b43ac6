"""`torch.compile` on whole networks, and as an option of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_pool import FakePool
from test_networks import EVERYTHING, small

from bsbimamba.training.config import ConfigError, override
from bsbimamba.training.distributed import World
from bsbimamba.training.precision import Precision
from bsbimamba.training.step import Learner

# PyTorch warns of instances that Dynamo makes, and of complex numbers.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("abl1", True), *(pytest.param("abl3", m, marks=pytest.mark.slow) for m in (False, "full"))],
)
def test_a_network_is_one_graph(name: str, mode: Any) -> None:
    net = small(name, use_checkpoint=mode)
    noisy = torch.randn(2, 2000)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = []
    for forward in (net, compiled):
        net.zero_grad()
        waveform, spectrum = forward(noisy)
        (waveform.square().sum() + spectrum.abs().sum()).backward()
        found.append([waveform.detach(), *(p.grad for p in net.parameters())])
    for eager, traced in zip(*found, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-4)


def learner(name: str, how: str, device: str = "cpu") -> Learner:
    network, config = EVERYTHING[name]
    config = override(config, {"run.compile": how, "data.batch_size": 2})
    config = replace(config, model={**config.model, "channels": 16})
    return Learner(network, config, Precision(device, "off"), World(), FakePool())


def test_graphs_without_a_card_are_refused() -> None:
    with pytest.raises(ConfigError, match="CUDA graphs need a CUDA device"):
        learner("abl1", "graphs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["abl3", "bsrnn"])
def test_a_compiled_run_learns_the_same(name: str) -> None:
    clean = torch.randn(2, 4000)
    batch = {"clean": clean, "noisy": clean + 0.3 * torch.randn(2, 4000)}
    losses = [
        [one.step(batch, number).values["loss"] for number in range(3)]
        for one in (learner(name, "off"), learner(name, "on"))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][2] != losses[0][0]
