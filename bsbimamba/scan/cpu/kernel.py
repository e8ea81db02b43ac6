"""How the CPU kernels are compiled and run: kept on disk, and shared out over threads.

The kernels release the GIL, so plain threads run them side by side. OpenMP is left alone: it kills
a forked child, and it would need a second copy of every kernel compiled for the serial case.
"""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numba import njit
from torch import Tensor

# Groups of sequences whose parameters' gradients are each summed inside one task. More of them
# balance better over threads and cost memory; the sums do not depend on the number of threads.
MAX_GROUPS = 32

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:16]


def kernel(function: Callable) -> Callable:
    """Compile a function when it is first called, and keep that for later processes.

    The cache is numba's (NUMBA_CACHE_DIR moves it), with three additions. numba looks at the date
    of the function's own file alone: here the name in the cache changes with every file that
    kernels inline code from. Two processes that compile for different dtypes at once may mix up
    their files: here one saves at a time. And numba raises where a file is damaged: here it is
    compiled anew. Where no folder can be written, every process compiles.
    """
    function.__qualname__ = f"{function.__name__}-{_VERSION}"
    compiled = njit(nogil=True, error_model="numpy")(function)
    try:
        compiled.enable_caching()
    except RuntimeError:
        return compiled
    cache = compiled._cache
    load, save = cache.load_overload, cache.save_overload

    def load_or_compile(signature: Any, context: Any) -> Any:
        # numba writes its files whole, but a power cut may leave empty ones. A damaged pickle may
        # raise any exception: all that this kernel has there is given up, and it is compiled anew.
        try:
            return load(signature, context)
        except Exception:
            cache.flush()
            return None

    def save_alone(signature: Any, data: Any) -> None:
        # Another process may have been suspended while it saved: then this one keeps nothing.
        with suppress(Timeout), FileLock(Path(cache.cache_path) / "scan.lock", timeout=20):
            save(signature, data)

    cache.load_overload, cache.save_overload = load_or_compile, save_alone
    return compiled


def share_out(kernel: Callable, tasks: int, *arguments: Any) -> None:
    """Run `kernel(counter, tasks, *arguments)` on `torch.get_num_threads()` threads.

    The kernel gets a tensor as the array of all memory that it reaches over, bfloat16 as uint16,
    and None as an array of size 0. Each thread takes tasks until the counter has passed their
    number, so that a thread that the system is slow to wake takes fewer of them.
    """
    arguments = tuple(_flat(x) if x is None or isinstance(x, Tensor) else x for x in arguments)
    counter = np.zeros(1, np.int64)
    threads = min(torch.get_num_threads(), tasks)
    futures = []
    # At the interpreter's end no thread takes work any more: this one does it all.
    with suppress(RuntimeError):
        for _ in range(threads - 1):
            pool = _pool(torch.get_num_threads() - 1)
            futures.append(pool.submit(kernel, counter, tasks, *arguments))
    try:
        kernel(counter, tasks, *arguments)
    finally:
        # Nobody may still write to these arrays when this returns or is interrupted.
        counter[0] = tasks
        for future in futures:
            if not future.cancel():
                future.result()


def _flat(x: Tensor | None) -> np.ndarray:
    if x is None:
        return np.empty(0, np.float32)
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    values = x.detach().as_strided((reach + 1 if x.numel() else 0,), (1,))
    return values.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else values.numpy()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")
