"""From features back to a filter: what each band's decoder says to the spectrum's bins.

The filter is a complex one of three taps over neighbouring frames ("deep filtering": Mack and
Habets, IEEE SPL 2020; in BSRNN as in sungwon23/BSRNN).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bsbimamba.network.bands import BANDS, DEFAULT_NORM, BandLinear, Group, Norm, groups

TAPS = 3


class GroupDecoder(nn.Module):
    """The decoders of one group of bands: norm, Linear, tanh, Linear, GLU.

    (k, b, t, c) to the real and imaginary filter coefficients (b, k * width, t, 3, 2) of its bins.
    """

    def __init__(self, group: Group, channels: int, norm: str) -> None:
        super().__init__()
        self.width = group.width
        self.norm = Norm(channels, norm, group.count)
        self.hidden = BandLinear(group.count, channels, group.hidden)
        self.hidden.weight.matrices = group.count  # type: ignore[attr-defined]
        self.output = BandLinear(group.count, group.hidden, 2 * group.width * TAPS * 2)
        self.start_near_identity()

    @torch.no_grad()
    def start_near_identity(self) -> None:
        """Scale down the output, as it was just initialised.

        With the 1 that the centre tap adds, an untrained network returns (nearly) its input. From a
        plain start it is still below its noisy input after a hundred steps.
        """
        for parameter in self.output.parameters():
            parameter.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[1]
        x = self.norm(x).flatten(1, 2)
        x = F.glu(self.output(torch.tanh(self.hidden(x))), dim=-1)
        return rearrange(
            x, "k (b t) (w tap r) -> b (k w) t tap r", b=b, w=self.width, tap=TAPS, r=2
        )


class MaskDecoder(nn.Module):
    """Features (k, b, t, c) to a complex filter (b, f, t, 3): taps at frames t - 1, t and t + 1.

    Args:
        channels: c.
        hidden: the hidden width of each of the 31 bands' decoders, or one for all.
        norm: as in `Norm`, of each band by itself.
    """

    def __init__(
        self, channels: int, hidden: int | Sequence[int], norm: str = DEFAULT_NORM
    ) -> None:
        super().__init__()
        widths = [hidden] * BANDS if isinstance(hidden, int) else list(hidden)
        self.groups = list(groups(widths))
        self.decoders = nn.ModuleList(GroupDecoder(group, channels, norm) for group in self.groups)

    def forward(self, x: Tensor) -> Tensor:
        # Complex numbers of half precision overflow at 65504: the filter is complex64, always.
        taps = torch.view_as_complex(self.parts(x).float().contiguous())
        identity = taps.new_tensor([0, 1, 0])
        return taps + identity

    def parts(self, x: Tensor) -> Tensor:
        """Real and imaginary parts (b, f, t, 3, 2) of the filter without its 1 in the centre."""
        filters = [
            decoder(x[group.bands])
            for group, decoder in zip(self.groups, self.decoders, strict=True)
        ]
        return torch.cat(filters, dim=1)


def apply_filter(taps: Tensor, spectrum: Tensor) -> Tensor:
    """Filter a spectrum (b, f, t) over its frames with taps (b, f, t, 3); zeros beyond its ends.

    out[t] = taps[t, 0] x[t - 1] + taps[t, 1] x[t] + taps[t, 2] x[t + 1]
    """
    padded = F.pad(spectrum, (1, 1))
    frames = spectrum.shape[-1]
    shifted = [padded[..., i : i + frames] for i in range(TAPS)]
    return sum((taps[..., i] * x for i, x in enumerate(shifted)), torch.zeros_like(spectrum))
