"""Paths: a sequence model along time or bands of features (k, b, t, c), and a feed-forward."""

from torch import Tensor, nn

from bsbimamba.network.bands import Norm
from bsbimamba.recompute.rows import Along, Checkpointing, along_bands, along_time
from bsbimamba.recompute.swiglu import Weights, swiglu

__all__ = ["Along", "Path", "PathBlock", "SwiGLU", "along_bands", "along_time"]


class SwiGLU(nn.Module):
    """The weights of a gated feed-forward (`recompute.swiglu`)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(channels, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, channels, bias=False)
        self.gate_and_value.weight.matrices = 2  # type: ignore[attr-defined]
        self.output.weight.matrices = 1  # type: ignore[attr-defined]

    def forward(self, x: Tensor, norm: Norm | None, use_checkpoint: Checkpointing) -> Tensor:
        """Return the feed-forward of norm(x), or of x without a norm: (k, b, t, c) to the same."""
        weights = Weights(self.gate_and_value.weight, self.output.weight)
        return swiglu(x, weights, use_checkpoint, norm)


class PathBlock(nn.Module):
    """A sequence model and a feed-forward, each behind a norm and beside a residual.

    (k, b, t, c) to the same.

    Args:
        channels: c.
        mixer: a module from x (k, b, t, c), a norm and `along`: what it makes of the sequences of
            norm(x), (k, b, t, c). Its `use_checkpoint`, if it has one, says what the feed-forward
            keeps for its backward pass (`recompute.rows`).
        along: `along_time` or `along_bands` of `recompute.rows`.
        norm: the kind of `Norm`.

    Raises:
        ValueError: there is no such norm.
    """

    def __init__(self, channels: int, mixer: nn.Module, along: Along, norm: str) -> None:
        super().__init__()
        self.mixer_norm = Norm(channels, norm)
        self.mixer = mixer
        self.feed_forward_norm = Norm(channels, norm)
        self.feed_forward = SwiGLU(channels, 2 * channels)
        self.along, self.use_checkpoint = along, getattr(mixer, "use_checkpoint", False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x, self.mixer_norm, self.along)
        return x + self.feed_forward(x, self.feed_forward_norm, self.use_checkpoint)


class Path(nn.Module):
    """A `PathBlock` under the name that it has in trained weights."""

    def __init__(self, channels: int, mixer: nn.Module, along: Along, norm: str) -> None:
        super().__init__()
        self.block = PathBlock(channels, mixer, along, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)
