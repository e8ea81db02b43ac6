"""The preset `bsrnn_public` against what sungwon23/BSRNN computes, written anew from its facts."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baseline.train import PRESETS
from bsbimamba.network.bands import WIDTHS, BandLinear
from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.stft import compressed


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


def per_band(linears: Iterator[BandLinear]) -> list[tuple[Tensor, Tensor]]:
    """Weight (outputs, inputs) and bias of each of the 31 bands' Linears."""
    return [(w.T, b[0]) for x in linears for w, b in zip(x.weight, x.bias, strict=True)]


def published_features(net: BandSplitNet, spectrum: Tensor) -> Tensor:
    """(b, f, t) to (b, c, t, k): of each band a group norm, whose variance has our floor."""
    parts = torch.view_as_real(compressed(spectrum))
    found, first = [], 0
    for width, (weight, bias) in zip(WIDTHS, per_band(net.split.linears), strict=True):
        bins = slice(first, first + width)
        first += width
        x = parts[:, bins].permute(0, 1, 3, 2).flatten(1, 2)  # (b, 2 w, t)
        gain, offset = net.split.weight[bins].flatten(), net.split.bias[bins].flatten()
        x = F.group_norm(x, 1, gain, offset, eps=0.01)
        found.append(F.conv1d(x, weight[..., None], bias))
    return torch.stack(found, -1)


def published_lstm(module: nn.Module, x: Tensor) -> Tensor:
    """(sequences, length, c) to the same, batch first."""
    ours = module.lstm
    lstm = nn.LSTM(
        ours.input_size, ours.hidden_size, batch_first=True, bidirectional=ours.bidirectional
    ).double()
    lstm.load_state_dict(ours.state_dict())
    return module.output(lstm(x)[0])


def published_layers(net: BandSplitNet, x: Tensor) -> Tensor:
    """(b, c, t, k) to the same: all LSTMs along time, then all LSTMs along bands."""
    b, c, t, k = x.shape
    for layer in net.layers:
        y = F.group_norm(x, 1, layer.time_norm.weight, layer.time_norm.bias)
        y = published_lstm(layer.time_lstm, y.permute(0, 3, 2, 1).reshape(b * k, t, c))
        x = x + y.reshape(b, k, t, c).permute(0, 3, 2, 1)
    for layer in net.layers:
        y = F.group_norm(x, 1, layer.band_norm.weight, layer.band_norm.bias)
        y = published_lstm(layer.band_lstm, y.permute(0, 2, 3, 1).reshape(b * t, k, c))
        x = x + y.reshape(b, t, k, c).permute(0, 3, 1, 2)
    return x


def published_taps(net: BandSplitNet, x: Tensor) -> Tensor:
    """(b, c, t, k) to the filter's parts (b, f, t, 3, 2), without the 1 in its centre."""
    decoders = net.decoder.decoders
    norms = zip(
        *(
            torch.cat([getattr(d.norm, name)[:, 0] for d in decoders])
            for name in ("weight", "bias")
        ),
        strict=True,
    )
    hidden = per_band(decoder.hidden for decoder in decoders)
    output = per_band(decoder.output for decoder in decoders)
    found = []
    for band, norm, first, second in zip(x.unbind(-1), norms, hidden, output, strict=True):
        y = F.group_norm(band, 1, *norm).mT
        y = F.glu(F.linear(torch.tanh(F.linear(y, *first)), *second), dim=-1)
        found.append(y.unflatten(-1, (-1, 3, 2)).transpose(1, 2))
    return torch.cat(found, 1)


def test_bsrnn_public_equals_the_published_layers(net: BandSplitNet) -> None:
    spectrum = torch.randn(2, 257, 9, dtype=torch.complex128) * torch.logspace(-2, 1, 257)[:, None]
    expected = published_taps(net, published_layers(net, published_features(net, spectrum)))
    found = net.decoder.parts(net.layers(net.split(spectrum)))
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
