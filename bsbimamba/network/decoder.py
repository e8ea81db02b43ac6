"""From features back to a filter: what each band's decoder says to the spectrum's bins.

The filter is a complex one of three taps over neighbouring frames ("deep filtering": Mack and
Habets, IEEE SPL 2020; in BSRNN as in sungwon23/BSRNN).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bsbimamba.network.bands import (
    BANDS,
    BIN_OF_PLACE,
    DEFAULT_NORM,
    PLACE_OF_BIN,
    WIDTHS,
    BandLinear,
    Norm,
    affine_linear,
    runs,
    select,
)
from bsbimamba.recompute.rows import layer_norm
from bsbimamba.recompute.weights import padded

TAPS = 3


class BandDecoder(nn.Module):
    """The weights of the decoders, one for each of `count` neighbours: norm, Linear, Linear.

    width: bins of a band. hidden: its numbers between the Linears.
    """

    def __init__(self, count: int, width: int, hidden: int, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = Norm(channels, norm, count)
        self.hidden = BandLinear(count, channels, hidden)
        self.hidden.weight.matrices = count  # type: ignore[attr-defined]
        self.output = BandLinear(count, hidden, 2 * width * TAPS * 2)
        self.start_near_identity()

    @torch.no_grad()
    def start_near_identity(self) -> None:
        """Scale down the output, as it was just initialised.

        An untrained network then returns (nearly) its input. From a plain start it is still below
        its noisy input after a hundred steps.
        """
        for parameter in self.output.parameters():
            parameter.mul_(0.1)


class MaskDecoder(nn.Module):
    """Turn features (k, b, t, c) into a complex filter (b, f, t, 3) for `apply_filter`.

    Each band has a decoder of its own: norm, Linear, tanh, Linear, GLU. All are computed as one,
    for as many places as `network.bands` gives each band.

    Args:
        channels: c.
        hidden: the hidden width of each of the 31 bands' decoders, or one for all.
        norm: as in `Norm`, of each band by itself.
    """

    place_of_bin: Tensor
    bin_of_place: Tensor

    def __init__(
        self, channels: int, hidden: int | Sequence[int], norm: str = DEFAULT_NORM
    ) -> None:
        super().__init__()
        widths = [hidden] * BANDS if isinstance(hidden, int) else list(hidden)
        self.decoders = nn.ModuleList(
            BandDecoder(count, width, size, channels, norm)
            for count, width, size in runs(WIDTHS, widths)
        )
        self.register_buffer("place_of_bin", PLACE_OF_BIN, persistent=False)
        self.register_buffer("bin_of_place", BIN_OF_PLACE, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Complex numbers of half precision overflow at 65504: the filter is complex64, always.
        return torch.view_as_complex(self.parts(x).float())

    def parts(self, x: Tensor) -> Tensor:
        """Compute real and imaginary parts (b, f, t, 3, 2) of the filter."""
        b = x.shape[1]
        decoders: list[Any] = list(self.decoders)
        norm = decoders[0].norm
        gain, offset, hidden, hidden_bias, output, output_bias = padded(
            [d.norm.weight for d in decoders],
            [d.norm.bias for d in decoders],
            [d.hidden.weight for d in decoders],
            [d.hidden.bias for d in decoders],
            # The halves that GLU takes are padded each by itself.
            [d.output.weight.unflatten(2, (2, -1)) for d in decoders],
            [d.output.bias.unflatten(2, (2, -1)) for d in decoders],
            copies=True,
        )
        x = layer_norm(x, norm.dims, norm.eps)[0].flatten(1, 2)
        x = torch.tanh(affine_linear(x, gain, offset, hidden, hidden_bias))
        y = F.glu(torch.baddbmm(output_bias.flatten(2), x, output.flatten(2)), dim=-1)
        y = rearrange(y, "k (b t) (w tap r) -> b (k w) t tap r", b=b, tap=TAPS, r=2)
        return select(y, self.place_of_bin, self.bin_of_place)


def apply_filter(taps: Tensor, spectrum: Tensor) -> Tensor:
    """Filter a spectrum (b, f, t) over its frames with taps (b, f, t, 3); zeros beyond its ends.

    out[t] = taps[t, 0] x[t - 1] + (1 + taps[t, 1]) x[t] + taps[t, 2] x[t + 1]: with taps of 0, it
    returns the spectrum.
    """
    neighbours = F.pad(spectrum, (1, 1)).unfold(-1, TAPS, 1)
    return spectrum + (taps * neighbours).sum(-1)
