"""A network as ONNX sees it: without complex numbers, and its LSTMs as ONNX has them.

ONNX has no complex numbers: a spectrum (b, f, t) is its real and imaginary parts (b, f, t, 2).
Split, layers and decoder are the network's own modules; what is complex in between is here.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bandsplit.decoder import TAPS
from bandsplit.net import BandSplitNet


class RealNetwork(nn.Module):
    """What a network does between STFT and iSTFT: (b, f, t, 2) to the same.

    It takes the spectrum of a waveform that was divided by its recording's loudness and, if its
    split has norms, the `band_statistics` (b, 31, 2) of that recording. It gives the filtered
    spectrum. network: in evaluation mode; it is not changed.
    """

    def __init__(self, network: BandSplitNet) -> None:
        super().__init__()
        self.network: Any = with_onnx_lstms(copy.deepcopy(network))

    def forward(self, spectrum: Tensor, statistics: Tensor | None = None) -> Tensor:
        network = self.network
        features = network.split.of_parts(compressed_parts(spectrum), statistics)
        taps = network.decoder.parts(network.layers(features))
        return filtered_parts(taps, spectrum)


def compressed_parts(spectrum: Tensor, power: float = 0.3) -> Tensor:
    """`bandsplit.stft.compressed` of real and imaginary parts (b, f, t, 2)."""
    squared = spectrum.square().sum(-1, keepdim=True)
    # (squared + 1e-9)^e, but with a 1 in place of the 1e-9, which onnxscript's optimiser takes for
    # a 0 and removes: silence would then be 0 times infinity.
    exponent = (power - 1) / 2
    return spectrum * (1e9 * squared + 1) ** exponent * 1e9**-exponent


def filtered_parts(taps: Tensor, spectrum: Tensor) -> Tensor:
    """`bandsplit.decoder.apply_filter` of real and imaginary parts.

    taps: (b, f, t, 3, 2), without the 1 that the centre one has beside. spectrum: (b, f, t, 2).
    """
    padded = F.pad(spectrum, (0, 0, 1, 1))
    frames = spectrum.shape[2]
    out = spectrum
    for i in range(TAPS):
        x = padded[:, :, i : i + frames]
        tap = taps[:, :, :, i]
        real = tap[..., 0] * x[..., 0] - tap[..., 1] * x[..., 1]
        imaginary = tap[..., 0] * x[..., 1] + tap[..., 1] * x[..., 0]
        out = out + torch.stack([real, imaginary], -1)
    return out


def with_onnx_lstms(module: nn.Module) -> nn.Module:
    """The module, each of its LSTMs replaced by `OnnxLSTM`."""
    for name, child in module.named_children():
        if isinstance(child, nn.LSTM):
            setattr(module, name, OnnxLSTM(child))
        else:
            with_onnx_lstms(child)
    return module


class OnnxLSTM(nn.Module):
    """An LSTM of one layer as the operator that ONNX has for it; it can be traced, not run.

    `torch.export` takes an `nn.LSTM` apart into one step after the other, for one length.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden = lstm.hidden_size
        self.direction = "bidirectional" if lstm.bidirectional else "forward"
        self.ways = 2 if lstm.bidirectional else 1
        suffixes = ("", "_reverse")[: self.ways]

        def stacked(name: str) -> Tensor:
            values = [getattr(lstm, f"{name}_l0{suffix}").detach() for suffix in suffixes]
            return torch.stack([_gates(value) for value in values])

        self.W = nn.Buffer(stacked("weight_ih"))
        self.R = nn.Buffer(stacked("weight_hh"))
        self.B = nn.Buffer(torch.cat([stacked("bias_ih"), stacked("bias_hh")], 1))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(l, b, c) to (l, b, ways · h) and, where `nn.LSTM` has its states, nothing."""
        length, batch = x.shape[:2]
        y = torch.onnx.ops.symbolic(
            "LSTM",
            [x, self.W, self.R, self.B],
            attrs={"hidden_size": self.hidden, "direction": self.direction},
            dtype=x.dtype,
            shape=[length, self.ways, batch, self.hidden],
            version=18,
        )
        return y.transpose(1, 2).flatten(2), None


def _gates(x: Tensor) -> Tensor:
    """Rows for input, forget, cell and output, as PyTorch has them, in the order of ONNX."""
    i, f, c, o = x.chunk(4)
    return torch.cat([i, o, f, c])
