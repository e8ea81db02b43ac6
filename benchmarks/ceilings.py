"""What the machine can do at best, measured: products a second and bytes a second."""

# mypy: disable-error-code="call-arg, var-annotated"
from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numba import njit

from scan.threads import share_out
from scan.vectors import LANES, fma, load, next_task, splat, store

# Multiplications and fused multiply-adds for one state at one step, counted in scan/cpu_kernels.py:
# exp2 takes five and the power of two one; the decay's exponent, the input (two) and the output.
PRODUCTS_FORWARD = 10
# The same again without the output, and nine in the walk back.
PRODUCTS_BACKWARD = 9 + 9


def median_seconds(run: Callable[[], object], rounds: int = 7) -> float:
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@njit(nogil=True)
def _multiply(counter, tasks, rounds, values):  # type: ignore[no-untyped-def]
    """Twelve chains of fused multiply-adds, enough to fill the pipelines of two units."""
    while next_task(counter) < tasks:
        x = load(values, 0)
        a = b = c = d = e = f = g = h = i = j = k = m = splat(np.float32(0))
        for _ in range(rounds):
            a, b, c, d = fma(a, x, x), fma(b, x, x), fma(c, x, x), fma(d, x, x)
            e, f, g, h = fma(e, x, x), fma(f, x, x), fma(g, x, x), fma(h, x, x)
            i, j, k, m = fma(i, x, x), fma(j, x, x), fma(k, x, x), fma(m, x, x)
        store(values, LANES, a + b + c + d + e + f + g + h + i + j + k + m)


def cpu_products_per_second() -> float:
    """Fused multiply-adds of float32 a second, on all threads."""
    tasks, rounds = 4 * torch.get_num_threads(), 200_000
    values = np.full(2 * LANES, 0.5, np.float32)
    seconds = median_seconds(lambda: share_out(_multiply, tasks, rounds, values))
    return tasks * rounds * 12 * LANES / seconds


def bytes_per_second(device: str) -> float:
    """Of a large copy, bytes read and written together."""
    size = 2**28 if device == "cpu" else 2**32
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize()

    return 2 * size / median_seconds(copy)
