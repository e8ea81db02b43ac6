"""The threads that run the CPU kernels.

The kernels release the GIL, so plain threads run them side by side. OpenMP is left alone: it kills
a forked child, and it would need a second copy of every kernel compiled for the serial case. (What
PyTorch does around a kernel, such as a large copy, uses OpenMP and may hang in a forked child.)
There are as many threads as `torch.get_num_threads()` says at the time of the call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch

# Groups of sequences whose parameters' gradients are each summed inside one task. More of them
# balance better over threads and cost memory; the sums do not depend on the number of threads.
MAX_GROUPS = 32


def share_out(kernel: Callable, tasks: int, *arguments: Any) -> None:
    """Run `kernel(counter, tasks, *arguments)` on several threads until the counter has passed
    `tasks`. A thread that the system is slow to wake takes fewer of them."""
    counter = np.zeros(1, np.int64)
    threads = min(torch.get_num_threads(), tasks)
    futures = []
    if threads > 1:
        pool = _pool(torch.get_num_threads() - 1, os.getpid())
        try:
            for _ in range(threads - 1):
                futures.append(pool.submit(kernel, counter, tasks, *arguments))
        except RuntimeError:
            # At the interpreter's end no thread takes work any more: this one does it all.
            pass
    try:
        kernel(counter, tasks, *arguments)
    finally:
        # Nobody may still write to these arrays when this returns or is interrupted.
        counter[0] = tasks
        for future in futures:
            if not future.cancel():
                future.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The helpers of this process; `process` makes a forked child start its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")
