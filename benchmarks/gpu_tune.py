"""Tries block sizes of the Triton scan on this GPU, after a parity check of each, and prints times.

    python -m benchmarks.gpu_tune [--rounds N]

The fastest belong into scan/gpu.py. Nearly all of the time goes into compiling, in as many
processes as there are cores; Triton keeps what they compile.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from benchmarks.rivals import make_case, ours
from benchmarks.scan import SHAPES
from benchmarks.side_by_side import parity, passes, timed
from data.workers import process_context
from scan import gpu

# Channels of a program, whose lanes are one warp; steps whose loads are under way at once;
# registers that a thread may have, None for what it asks for; how many programs at most.
FORWARD = [
    {"BLOCK": block, "TILE": tile, "maxnreg": most}
    for block, tile, most in (
        (32, 4, None), (32, 8, None), (32, 8, 96), (64, 1, None), (64, 2, None), (64, 4, 128),
        (64, 4, None),
    )
]  # fmt: skip
BACKWARD = [
    {"BLOCK": block, "TILE": tile, "maxnreg": most, "programs": programs}
    for block, tile, most in (
        (32, 4, 128), (32, 8, None), (32, 8, 168), (32, 8, 128), (64, 4, None), (64, 4, 168),
        (64, 4, 128), (64, 8, None), (64, 8, 168),
    )
    for programs in (1200, 2400, 4800)
]  # fmt: skip
JOBS: list[tuple] = [(sizes, None) for sizes in FORWARD] + [(None, sizes) for sizes in BACKWARD]


def _set(forward: dict[str, Any] | None, backward: dict[str, Any] | None) -> str:
    """Use these sizes, and give them a name."""
    gpu.FORWARD |= forward or {}
    sizes = forward or backward or {}
    if backward:
        backward = backward.copy()
        gpu.PROGRAMS = backward.pop("programs", gpu.PROGRAMS)
        gpu.BACKWARD |= backward
    label = "forward" if forward else "backward"
    return f"{label:8} " + ", ".join(f"{key} {value!s:>4}" for key, value in sizes.items())


def check(forward: dict[str, Any] | None, backward: dict[str, Any] | None) -> str:
    """What is wrong with these sizes, nothing if they can be timed; compiles all that will be."""
    name = _set(forward, backward)
    scan = ours("triton")
    try:
        if not parity(name, scan, "cuda", 2, backward is not None):
            return "is not what the oracle says"
        for size in SHAPES["cuda"].values():
            case = make_case(size, 2, "cuda", torch.bfloat16)
            passes(scan, case, None if forward else torch.ones_like(case.u))
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; 0 only compiles")
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device here")
        return 1
    print(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    # By the name under which other processes find it, whatever this module was started as.
    from benchmarks.gpu_tune import check

    jobs = JOBS
    workers = min(16, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=process_context()) as pool:
        faults = list(pool.map(check, *zip(*jobs, strict=True)))
    for job, fault in zip(jobs, faults, strict=True):
        if fault:
            print(f"{_set(*job)}: {fault}")
    time_them([job for job, fault in zip(jobs, faults, strict=True) if not fault], rounds)
    return 0


def time_them(jobs: list[tuple], rounds: int) -> None:
    """Print the times of sizes for the forward pass alone and for both passes, fastest first."""
    scan = ours("triton")
    before = gpu.FORWARD.copy(), {**gpu.BACKWARD, "programs": gpu.PROGRAMS}
    for shape, size in SHAPES["cuda"].items() if rounds else ():
        case = make_case(size, 2, "cuda", torch.bfloat16)
        probe = torch.randn_like(case.u)
        rows = []
        for forward, backward in jobs:
            _set(*before)
            name = _set(forward, backward)
            run = partial(passes, scan, case, None if forward else probe)
            rows.append((forward is None, timed({name: run}, rounds, "cuda")[name], name))
        for _, seconds, name in sorted(rows):
            print(f"{shape}, {name}: {1000 * seconds:.3f} ms")


if __name__ == "__main__":
    sys.exit(main())
