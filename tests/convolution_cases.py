"""The convolution with SiLU compared with its definition, for the tests of all its backends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scan_cases import assert_close, gradients, leaves_of
from torch import Tensor

from scan import causal_conv_silu


def definition(u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """(b, l, d) by conv1d on (b, d, l), flipped where it looks ahead."""
    x = u.flip(1) if reverse else u
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    y = F.conv1d(padded, weight[:, None], bias, groups=len(weight)).transpose(1, 2)
    return F.silu(y.flip(1) if reverse else y)


def make(b: int, length: int, d: int, taps: int, directions: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"u": (b, length, d), "weight": (d, taps), "bias": (d,)}
    return {
        k: torch.randn(directions, *shape, generator=rng, dtype=torch.float64)
        for k, shape in shapes.items()
    }


def compare(
    backend: str,
    b: int,
    length: int,
    d: int,
    taps: int = 4,
    reverse: bool = False,
    directions: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> None:
    """Output and all gradients of a backend against the definition in float64."""
    arguments = {k: v.to(dtype).double() for k, v in make(b, length, d, taps, directions).items()}
    leaves = leaves_of(arguments, torch.float64)
    ways = (reverse, not reverse)[:directions]
    parts = [
        definition(*(x[r] for x in leaves.values()), reverse=way) for r, way in enumerate(ways)
    ]
    expected = gradients({"out": torch.stack(parts)}, leaves)
    leaves = leaves_of({k: v.to(device) for k, v in arguments.items()}, dtype)
    out = causal_conv_silu(**leaves, reverse=reverse, backend=backend)
    assert out.dtype == dtype
    assert_close(gradients({"out": out}, leaves), expected, dtype)
