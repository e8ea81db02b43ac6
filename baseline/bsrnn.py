"""BSRNN: the band-split network with LSTMs, and its controls.

Source: Yu and Luo, "Efficient Monaural Speech Enhancement with Universal Sample Rate Band-Split
RNN", ICASSP 2023, in the 16-kHz form of sungwon23/BSRNN. The preset `bsrnn_public` has the layers,
norms and initialisation of that code. It differs by the signal path: features are compressed, a
band's variance in the split has a floor of 0.01, filters start near the identity, and the STFT pads
by zeros.
"""

import warnings

from torch import Tensor, nn

from bsbimamba.network.bands import DEFAULT_NORM, BandLinear, Norm
from bsbimamba.network.decoder import BandDecoder, MaskDecoder
from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.path import Along, Path, along_bands, along_time

# cuDNN puts the weights of an LSTM together in each call: all parameters are views of one tensor.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")


class LSTM(nn.Module):
    """An LSTM in one or both directions and the Linear back. (k, b, t, c) to the same."""

    def __init__(self, channels: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, bidirectional=bidirectional)
        self.output = nn.Linear(hidden * (2 if bidirectional else 1), channels)
        for of_input, of_state, *_ in self.lstm.all_weights:
            of_input.matrices = of_state.matrices = 4  # type: ignore[attr-defined]  # the gates
        self.output.weight.matrices = 1  # type: ignore[attr-defined]

    def forward(self, x: Tensor, norm: nn.Module, along: Along) -> Tensor:
        """Return what LSTM and Linear make of the sequences of norm(x)."""
        steps = along.steps(norm(x))
        # One tensor of zeros, where the LSTM would make two.
        directions = 1 + self.lstm.bidirectional
        start = steps.new_zeros(directions, steps.shape[1], self.lstm.hidden_size)
        y = self.output(self.lstm(steps, (start, start))[0])
        return along.features_of_steps(y, x.shape)


class BSRNNLayer(nn.Module):
    """An LSTM along time and a bidirectional one along bands. (k, b, t, c) to the same."""

    def __init__(self, channels: int, bidirectional_time: bool, norm: str) -> None:
        super().__init__()
        self.time_norm = Norm(channels, norm)
        self.time_lstm = LSTM(channels, 2 * channels, bidirectional_time)
        self.band_norm = Norm(channels, norm)
        self.band_lstm = LSTM(channels, 2 * channels, bidirectional=True)

    def along_time(self, x: Tensor) -> Tensor:
        return x + self.time_lstm(x, self.time_norm, along_time)

    def along_bands(self, x: Tensor) -> Tensor:
        return x + self.band_lstm(x, self.band_norm, along_bands)

    def forward(self, x: Tensor) -> Tensor:
        return self.along_bands(self.along_time(x))


class TimeFirst(nn.Sequential):
    """The time LSTMs of all layers, then all their band LSTMs."""

    def forward(self, x: Tensor) -> Tensor:
        for half in ("along_time", "along_bands"):
            for layer in self:
                x = getattr(layer, half)(x)
        return x


class BSRNN(BandSplitNet):
    """Without arguments, the baseline of the README's table.

    Args:
        num_layers: pairs of a time and a band LSTM.
        channels: features of each band (N); the LSTMs are 2 N wide, the decoders 4 N.
        bidirectional_time: read the frames in both directions, as the Mamba networks do.
        norm: see `Norm` in `network.bands`.
        time_first: all time LSTMs come before all band LSTMs, as published, instead of in turn.
        published_start: initialise as published: LSTMs and Linears Xavier-uniform, the LSTMs'
            recurrent weights orthogonal, biases 0.
    """

    def __init__(
        self,
        num_layers: int = 5,
        channels: int = 56,
        bidirectional_time: bool = False,
        norm: str = DEFAULT_NORM,
        time_first: bool = False,
        published_start: bool = False,
    ) -> None:
        container = TimeFirst if time_first else nn.Sequential
        layers = container(
            *(BSRNNLayer(channels, bidirectional_time, norm) for _ in range(num_layers))
        )
        decoder = MaskDecoder(channels, 4 * channels, norm)
        super().__init__(channels, layers, decoder)
        if published_start:
            start_as_published(self)


def start_as_published(network: BandSplitNet) -> None:
    """Initialise LSTMs and Linears as sungwon23/BSRNN does; the decoders start near the identity.

    Source: the end of `BSRNN.__init__` in its module.py.
    """
    for module in network.modules():
        if not isinstance(module, nn.LSTM | nn.Linear | BandLinear):
            continue
        for name, parameter in module.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                for matrix in parameter if parameter.dim() == 3 else [parameter]:
                    nn.init.xavier_uniform_(matrix)
    for module in network.modules():
        if isinstance(module, BandDecoder):
            module.start_near_identity()


class LSTMDualPath(BandSplitNet):
    """Ablation 2 with a BiLSTM for each pair of Mambas: the pure comparison of Mamba and LSTM.

    With 174 units a direction, a path has 801,216 parameters; a Mamba path has 798,912.

    Args:
        num_layers, norm: as in `BSRNN`; of a layer's two paths.
        channels: features of each band.
        lstm_width: units of each direction.
        hidden: width of every band's decoder.
    """

    def __init__(
        self,
        num_layers: int = 1,
        channels: int = 192,
        lstm_width: int = 174,
        hidden: int = 96,
        norm: str = DEFAULT_NORM,
    ) -> None:
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            for along in (along_time, along_bands):
                mixer = LSTM(channels, lstm_width, bidirectional=True)
                layers.append(Path(channels, mixer, along, norm))
        decoder = MaskDecoder(channels, hidden, norm)
        super().__init__(channels, nn.Sequential(*layers), decoder)
