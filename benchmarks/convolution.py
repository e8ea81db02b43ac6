"""The short convolution with its SiLU, as PyTorch has it and fused, side by side on a CPU.

python -m benchmarks.convolution [--rounds N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.scan import SHAPES, timed
from scan import causal_conv_silu


def passes(backend: str, leaves: tuple[Tensor, Tensor, Tensor], probe: Tensor | None) -> None:
    """Forward, and backward where there is a gradient for the output."""
    u, weight, bias = leaves
    if probe is None:
        with torch.no_grad():
            causal_conv_silu(u, weight, bias, backend=backend)
    else:
        torch.autograd.grad(causal_conv_silu(u, weight, bias, backend=backend), leaves, probe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: 15)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, (b, length, d, _) in SHAPES["cpu"].items():
        # Half of a projection's output, as the networks have it.
        u = torch.randn(b, length, 2, d)[:, :, 0]
        weight, bias = torch.randn(d, 4, requires_grad=True), torch.randn(d, requires_grad=True)
        leaves = (u.requires_grad_(), weight, bias)
        runs: dict[str, Callable] = {}
        for backend in ("torch", "cpu"):
            for label, probe in (("forward", None), ("both", torch.randn(b, length, d))):
                runs[f"{backend} {label}"] = lambda x=backend, y=leaves, g=probe: passes(x, y, g)
        found = timed(runs, rounds, "cpu")
        print(f"{name}: " + ", ".join(f"{k} {1e3 * v:.1f} ms" for k, v in found.items()))


if __name__ == "__main__":
    main()
