"""The short convolution with its SiLU, as PyTorch has it and fused, side by side.

python -m benchmarks.convolution [--device cuda] [--rounds N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.scan import SHAPES
from benchmarks.side_by_side import timed
from scan import causal_conv_silu

BACKENDS = {"cpu": ("torch", "cpu"), "cuda": ("torch", "triton")}


def passes(backend: str, leaves: tuple[Tensor, ...], probe: Tensor | None) -> None:
    """Forward, and backward where there is a gradient for the output."""
    u, weight, bias = leaves
    if probe is None:
        with torch.no_grad():
            causal_conv_silu(u, weight, bias, backend=backend)
    else:
        torch.autograd.grad(causal_conv_silu(u, weight, bias, backend=backend), leaves, probe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=tuple(BACKENDS), default="cpu")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: 15)")
    options = parser.parse_args()
    device, rounds = options.device, options.rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    # As the networks call it: on a GPU in bfloat16 and in both directions at once.
    dtype, directions = (torch.bfloat16, 2) if device == "cuda" else (torch.float32, 1)
    for name, (b, length, d, _) in SHAPES[device].items():
        # Half of a projection's output, as the networks have it.
        u = torch.randn(b, length, directions, 2, d, device=device).to(dtype)[..., 0, :]
        weight, bias = (torch.randn(directions, *x, device=device) for x in ((d, 4), (d,)))
        leaves = tuple(x.requires_grad_() for x in (u.permute(2, 0, 1, 3), weight, bias))
        probe = torch.randn(directions, b, length, d, device=device).to(dtype)
        runs: dict[str, Callable] = {}
        for backend in BACKENDS[device]:
            for label, g in (("forward", None), ("both", probe)):
                runs[f"{backend} {label}"] = lambda x=backend, y=leaves, g=g: passes(x, y, g)
        found = timed(runs, rounds, device)
        print(f"{name}: " + ", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in found.items()))


if __name__ == "__main__":
    main()
