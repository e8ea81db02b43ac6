"""How the CPU kernels move states between arrays and their scratch memory.

In scratch a state is (n, 16): for each of n states, one vector of channels.
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from scan.vector_math import ZERO
from scan.vectors import LANES, load, splat, store


@njit(inline="always")
def scratch(size):
    """Uninitialised floats from the start of a cache line: a vector across two is slow to read."""
    raw = np.empty(size + LANES, np.float32)
    first = (-(raw.ctypes.data >> 2)) & (LANES - 1)
    return raw[first : first + size]


@njit(inline="always")
def copy_state(n, source, at, width, h):
    """A vector's states out of an array (..., n, width) into scratch (n, 16); zeros if absent."""
    for s in range(n):
        value = splat(ZERO)
        if source.size > 0:
            value = load(source, at + s * width)
        store(h, s * LANES, value)


@njit(inline="always")
def keep_state(n, h, target, at, width):
    for s in range(n):
        store(target, at + s * width, load(h, s * LANES))


@njit(inline="always")
def copy_columns(n, source, at, h):
    """As `copy_state`, out of an array (..., width, n)."""
    for s in range(n):
        store(h, s * LANES, splat(ZERO))
        if source.size > 0:
            for lane in range(LANES):
                h[s * LANES + lane] = source[at + lane * n + s]


@njit(inline="always")
def keep_columns(n, h, target, at):
    for s in range(n):
        for lane in range(LANES):
            target[at + lane * n + s] = h[s * LANES + lane]
