"""Paths: how a sequence model is applied along time or along bands of features (k, b, t, c)."""

from collections.abc import Callable

from torch import Tensor, nn

from bsbimamba.network.bands import Norm
from bsbimamba.recompute.rows import Checkpointing, compute_dtype
from bsbimamba.recompute.swiglu import Weights, swiglu

Along = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def along_time(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `model`, (sequences, length, c) to the same, to the frames of each band of x."""
    return model(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def along_bands(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `model`, (sequences, length, c) to the same, to the bands of each frame of x.

    What it is given is a view, the steps of a sequence far apart; what it gives may be one, too.
    """
    y = model(x.flatten(1, 2).transpose(0, 1))
    return y.transpose(0, 1).unflatten(1, x.shape[1:3])


class SwiGLU(nn.Module):
    """The weights of a gated feed-forward (`recompute.swiglu`)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(channels, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, channels, bias=False)
        self.gate_and_value.weight.matrices = 2  # type: ignore[attr-defined]
        self.output.weight.matrices = 1  # type: ignore[attr-defined]

    def forward(self, x: Tensor, norm: Norm | None, use_checkpoint: Checkpointing) -> Tensor:
        """Return the feed-forward of norm(x), or of x without a norm: (..., c) to the same."""
        weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
        weights = Weights(weight, bias, self.gate_and_value.weight, self.output.weight)
        return swiglu(x, weights, use_checkpoint, 0.0 if norm is None else norm.eps)


class PathBlock(nn.Module):
    """A sequence model and a feed-forward, each behind a norm and beside a residual.

    (k, b, t, c) to the same.

    Args:
        channels: c.
        mixer: a module from (sequences, length, c) and a norm to be applied to that first, to
            (sequences, length, c). Its `use_checkpoint`, if it has one, says what the feed-forward
            keeps for its backward pass (`recompute.rows`).
        along: `along_time` or `along_bands`.
        norm: the kind of `Norm`. Mixer and feed-forward take a few rows at a time, with norms over
            channels on the way; other norms are taken before, and what they give is kept.

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
        if self.mixer_norm.dims != (3,):
            dtype = compute_dtype(x)  # of the products, which take nothing else from the norms
            x = x + self.along(self.mixer, self.mixer_norm(x).to(dtype))
            normed = self.feed_forward_norm(x).to(dtype)
            return x + self.feed_forward(normed, None, self.use_checkpoint)
        x = x + self.along(lambda sequences: self.mixer(sequences, self.mixer_norm), x)
        return x + self.feed_forward(x, self.feed_forward_norm, self.use_checkpoint)


class Path(nn.Module):
    """A `PathBlock` under the name that it has in trained weights."""

    def __init__(self, channels: int, mixer: nn.Module, along: Along, norm: str) -> None:
        super().__init__()
        self.block = PathBlock(channels, mixer, along, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)
