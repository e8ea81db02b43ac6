"""What a network costs: counts against sums by hand, measurements against what must be so."""

import copy
import os

import pytest
import torch
from test_networks import EVERYTHING, small

from bsbimamba.network.bands import WIDTHS
from bsbimamba.network.cost import count_macs, count_parameters, measure_cost
from bsbimamba.network.net import BandSplitNet

FRAMES, SECONDS = 251, 2
PLACES = FRAMES * len(WIDTHS)  # in a sequence of features, for the two seconds


# Multiply-accumulates of two seconds, counted by hand.


def ends(channels: int, hidden: list[int]) -> int:
    """The split's Linears (real and imaginary part of each bin) and the decoders' two."""
    split = sum(2 * width * channels for width in WIDTHS)
    decoders = sum(
        channels * h + h * 2 * 6 * w  # a gate and a value of 3 complex taps for each bin
        for w, h in zip(WIDTHS, hidden, strict=True)
    )
    return FRAMES * (split + decoders)


def lstm(channels: int, width: int, directions: int) -> int:
    """Four gates of input and state, and the Linear back."""
    return PLACES * directions * (4 * width * (channels + width) + width * channels)


def swiglu(channels: int) -> int:
    return PLACES * (channels * 4 * channels + 2 * channels * channels)


def bimamba(channels: int, inner: int, states: int, rank: int, taps: int = 4) -> int:
    """Gu and Dao's block, twice; the scan's three products in each state. The last projection of
    each and the Linear that joins them are one product, with the product of their weights."""
    projections = channels * 2 * inner + inner * (rank + 2 * states) + rank * inner
    one = projections + taps * inner + 3 * inner * states
    weights = 2 * channels * inner * channels
    return PLACES * (2 * one + 2 * inner * channels) + weights


MAMBA_PATH = bimamba(192, 384, 16, 12) + swiglu(192)
BY_HAND = {
    "bsrnn": ends(56, [224] * 31) + 5 * (lstm(56, 112, 1) + lstm(56, 112, 2)),
    "bsrnn_public": ends(64, [256] * 31) + 5 * (lstm(64, 128, 1) + lstm(64, 128, 2)),
    "bsrnn_bi": ends(56, [224] * 31) + 4 * 2 * lstm(56, 112, 2),
    "lstm_dualpath": ends(192, [96] * 31) + 2 * (lstm(192, 174, 2) + swiglu(192)),
    "abl1": ends(192, [96] * 31) + MAMBA_PATH,
    "abl2": ends(192, [96] * 31) + 2 * MAMBA_PATH,
    "abl3": ends(192, [24] * 11 + [32] * 12 + [36] * 8) + 2 * MAMBA_PATH,
    "uniform31": ends(192, [31] * 31) + 2 * MAMBA_PATH,
}


def full(name: str) -> BandSplitNet:
    network, config = EVERYTHING[name]
    return network(**config.model)


@pytest.mark.parametrize("name", EVERYTHING)
def test_count_macs_counts_every_product_once(name: str) -> None:
    assert count_macs(full(name), SECONDS) * SECONDS == BY_HAND[name]


@pytest.mark.parametrize("backend", ["reference", "chunked", "cpu", "triton"])
def test_count_macs_does_not_depend_on_the_backend(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """The counter sees nothing of "reference"; "triton" cannot run where it is counted."""
    net = small("abl1")
    expected = count_macs(net)
    monkeypatch.setenv("BSBIMAMBA_SCAN", backend)
    assert count_macs(net) == expected
    assert os.environ["BSBIMAMBA_SCAN"] == backend


@pytest.mark.parametrize("name", ["bsrnn", "abl3"])
def test_measure_cost_fills_every_field_and_changes_nothing(name: str) -> None:
    net = small(name).train()
    weights, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = measure_cost(net, torch.device("cpu"), seconds=1)
    assert found["parameters"] == count_parameters(net)
    assert found["macs_per_second"] == count_macs(net)
    assert found["real_time_factor"] > 0
    assert found["measured_on"].endswith(f", threads: {torch.get_num_threads()}, 1 s at once")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(x, weights[name]) for name, x in net.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
@pytest.mark.parametrize("name", ["bsrnn", "abl3"])
def test_on_a_gpu(name: str) -> None:
    net = full(name)
    few, many = (measure_cost(net, torch.device("cuda"), seconds) for seconds in (1, 4))
    assert many["measured_on"] == f"{torch.cuda.get_device_name()}, 4 s at once"
    assert 0 < many["real_time_factor"] < 1
    assert few["macs_per_second"] == many["macs_per_second"] == BY_HAND[name] / SECONDS
    assert {p.device.type for p in net.parameters()} == {"cpu"}
