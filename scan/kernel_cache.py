"""Compiled numba kernels, kept for later processes."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from numba import config, njit

_FOLDER = Path(__file__).resolve().parent
SOURCES = [
    _FOLDER / name
    for name in (
        "conv_kernels.py",
        "cpu_kernels.py",
        "cpu_states.py",
        "kernel_cache.py",
        "polynomials.py",
        "vector_math.py",
        "vectors.py",
    )
]
VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]


def kernel(function: Callable) -> Callable:
    """Compile a function when it is first called, and keep that in .cache/ for later processes.

    numba itself would look at the date of one file alone, and go on with old code when what is
    inlined from another has changed: here the folder is named by the content of all of them. It
    writes a file under a name of its own and renames that, so processes may start side by side.
    """
    kept = config.CACHE_DIR
    folder = Path(kept) if kept else _FOLDER.parent / ".cache"
    config.CACHE_DIR = str(folder / f"scan-{VERSION}")
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = kept
