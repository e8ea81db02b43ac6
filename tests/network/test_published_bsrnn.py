"""The preset `bsrnn_public` against what sungwon23/BSRNN computes (`benchmarks.looped`)."""

import pytest
import torch
from torch import nn

from baseline.train import PRESETS
from benchmarks.looped import LoopedBSRNN
from bsbimamba.network.bands import BandLinear
from bsbimamba.network.net import BandSplitNet


def preset(channels: int) -> BandSplitNet:
    torch.manual_seed(0)
    network, config = PRESETS["bsrnn_public"]
    return network(**{**config.model, "channels": channels})


@pytest.fixture
def net() -> BandSplitNet:
    """In float64, with weights of its own in all norms and biases."""
    net = preset(8).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def test_bsrnn_public_equals_the_published_layers(net: BandSplitNet) -> None:
    spectrum = torch.randn(2, 257, 9, dtype=torch.complex128) * torch.logspace(-2, 1, 257)[:, None]
    published = LoopedBSRNN(**{**PRESETS["bsrnn_public"][1].model, "channels": 8}).double()
    published.load_state_dict(net.state_dict())
    expected, found = (x.decoder.parts(x.layers(x.split(spectrum))) for x in (published, net))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_bsrnn_public_starts_as_published() -> None:
    """Xavier-uniform, recurrent weights orthogonal, no biases; the filter's scale is ours."""
    net = preset(16)
    scaled = {id(decoder.output): 0.1 for decoder in net.decoder.decoders}
    for module in net.modules():
        if not isinstance(module, nn.LSTM | nn.Linear | BandLinear):
            continue
        for name, parameter in module.named_parameters():
            if name.startswith("bias"):
                assert not parameter.any()
            elif name.startswith("weight_hh"):
                identity = parameter.T @ parameter
                torch.testing.assert_close(identity, torch.eye(len(identity)), rtol=0, atol=1e-5)
            else:
                bound = (6 / sum(parameter.shape[-2:])) ** 0.5 * scaled.get(id(module), 1.0)
                assert 0.8 * bound < parameter.abs().max() <= bound
