"""Tries block sizes of the Triton scan on this GPU, after a parity check of each, and prints times.

    python -m benchmarks.gpu_tune

The fastest belong into scan/gpu.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import product

import torch

from benchmarks.rivals import make_case, ours
from benchmarks.scan import SHAPES, parity, passes, timed
from scan import gpu


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here")
        return 1
    print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    scan = ours("triton")
    for shape, size in SHAPES["cuda"].items():
        case = make_case(size, 2, "cuda", torch.bfloat16)
        probe = torch.randn_like(case.u)
        for block, warps, tile in product((32, 64, 128), (1, 2), (4, 8, 16)):
            if block < 32 * warps or block * tile > 1024:
                continue
            gpu.BLOCK, gpu.WARPS, gpu.TILE = block, warps, tile
            name = f"{shape}: block {block}, warps {warps}, tile {tile}"
            runs: dict[str, Callable] = {
                "forward": lambda case=case: passes(scan, case, False, None),
                "both": lambda case=case, probe=probe: passes(scan, case, True, probe),
            }
            try:
                if not parity(name, scan, "cuda", 2, True):
                    continue
                found = timed(runs, 5, "cuda")
            except RuntimeError as error:
                print(f"{name}: {error}")
                continue
            print(f"{name}: " + ", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
