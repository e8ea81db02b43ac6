"""BSRNN: the band-split network with LSTMs, and its controls.

Source: Yu and Luo, "Efficient Monaural Speech Enhancement with Universal Sample Rate Band-Split
RNN", ICASSP 2023, in the 16-kHz form of sungwon23/BSRNN. As published with `channels=64,
norm_over_frames=True`; what is ours is the signal path around the layers (`bandsplit`).
"""

from __future__ import annotations

from torch import Tensor, nn

from bandsplit.bands import Norm
from bandsplit.decoder import MaskDecoder
from bandsplit.net import BandSplitNet
from bandsplit.path import PathBlock, along_bands, along_time


class LSTM(nn.Module):
    """An LSTM in one or both directions and the Linear back: (sequences, length, c) to the same.

    Sequences may be a view of (length, sequences, c), which is how LSTMs want them: no copy then.
    """

    def __init__(self, channels: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, bidirectional=bidirectional)
        self.output = nn.Linear(hidden * (2 if bidirectional else 1), channels)
        for of_input, of_state, *_ in self.lstm.all_weights:
            of_input.matrices = of_state.matrices = 4  # type: ignore[attr-defined]  # the gates
        self.output.weight.matrices = 1  # type: ignore[attr-defined]

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Of norm(x), where there is one."""
        x = x if norm is None else norm(x)
        return self.output(self.lstm(x.transpose(0, 1))[0]).transpose(0, 1)


class BSRNNLayer(nn.Module):
    """An LSTM along time and a bidirectional one along bands. (k, b, t, c) to the same."""

    def __init__(self, channels: int, bidirectional_time: bool, norm_over_frames: bool) -> None:
        super().__init__()
        self.time_norm = Norm(channels, over_frames=norm_over_frames)
        self.time_lstm = LSTM(channels, 2 * channels, bidirectional_time)
        self.band_norm = Norm(channels, over_frames=norm_over_frames)
        self.band_lstm = LSTM(channels, 2 * channels, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + along_time(self.time_lstm, self.time_norm(x))
        return x + along_bands(self.band_lstm, self.band_norm(x))


class BSRNN(BandSplitNet):
    """Without arguments, the baseline of the README's table.

    Args:
        num_layers: pairs of a time and a band LSTM.
        channels: features of each band (N); the LSTMs are 2 N wide, the decoders 4 N.
        bidirectional_time: read the frames in both directions, as the Mamba networks do.
        norm_over_frames: take the statistics of all norms over channels × frames, as published,
            instead of over channels.
    """

    def __init__(
        self,
        num_layers: int = 5,
        channels: int = 56,
        bidirectional_time: bool = False,
        norm_over_frames: bool = False,
    ) -> None:
        layers = nn.Sequential(
            *(BSRNNLayer(channels, bidirectional_time, norm_over_frames) for _ in range(num_layers))
        )
        decoder = MaskDecoder(channels, 4 * channels, norm_over_frames)
        super().__init__(channels, layers, decoder, norm_over_frames)


class LSTMPath(nn.Module):
    """A path of the Mamba networks, an LSTM in the place of the two Mambas and their Linear."""

    def __init__(
        self, channels: int, lstm_width: int, across_bands: bool, norm_over_frames: bool
    ) -> None:
        super().__init__()
        mixer = LSTM(channels, lstm_width, bidirectional=True)
        along = along_bands if across_bands else along_time
        self.block = PathBlock(channels, mixer, along, over_frames=norm_over_frames)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class LSTMDualPath(BandSplitNet):
    """Ablation 2 with a BiLSTM for each pair of Mambas: the pure comparison of Mamba and LSTM.

    With 174 units a direction, a path has 801,216 parameters; a Mamba path has 798,912.

    Args:
        num_layers, norm_over_frames: as in `BSRNN`; of a layer's two paths.
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
        norm_over_frames: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            for across_bands in (False, True):
                layers.append(LSTMPath(channels, lstm_width, across_bands, norm_over_frames))
        decoder = MaskDecoder(channels, hidden, norm_over_frames)
        super().__init__(channels, nn.Sequential(*layers), decoder, norm_over_frames)
