"""The selective scan's numba kernels, forward and backward, in float32.

Both walk the sequence step by step with the state of one block of 64 channels in the first-level
cache, and are vectorised over those channels: `LANES` is a compile-time constant, so that LLVM
unrolls the loops over it completely. Neither starts threads. Each takes a range of independent
tasks and releases the GIL, and `scan.cpu` shares the tasks out; every task writes to places of its
own, so the result does not depend on the number of threads.

Layouts (time-major, C-contiguous): u, delta, z, y (b, l, d); A transposed to (n, d); B, C
(b, l, n); states (b, n, d). An absent optional argument is an array of size 0.
Notation as in Gu and Dao, "Mamba", 2023, section 2 and algorithm 2:
    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t,    out_t = y_t silu(z_t)
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined"
from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numba import config, njit

from scan.vector_math import (
    FASTMATH,
    exp2,
    sigmoid,
    sigmoid_from_softplus,
    softplus,
    wide_vectors,
)

LANES = 64
LOG2_E = np.float32(1.4426950408889634)
_ZERO = np.float32(0)
_ONE = np.float32(1)

_FOLDER = Path(__file__).resolve().parent
_SOURCES = [_FOLDER / name for name in ("cpu_kernels.py", "vector_math.py")]
_VERSION = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()[:16]


def _kernel(function):
    """Compile a function when it is first called, and keep that in .cache/ for later processes.

    numba itself would look at the date of this file alone, and go on with old code when what is
    inlined from `vector_math` has changed: here the folder is named by the content of both.
    """
    kept = config.CACHE_DIR
    folder = Path(kept) if kept else _FOLDER.parent / ".cache"
    config.CACHE_DIR = str(folder / f"scan-{_VERSION}")
    try:
        return njit(fastmath=FASTMATH, nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = kept


@njit(inline="always", fastmath=FASTMATH)
def _load(row, first, out):
    """Copy one block of channels, zeros where the width ends inside it."""
    count = min(LANES, row.shape[0] - first)
    if count == LANES:
        for j in range(LANES):
            out[j] = row[first + j]
    else:
        for j in range(LANES):
            out[j] = row[first + j] if j < count else _ZERO


@njit(inline="always", fastmath=FASTMATH)
def _store(values, row, first):
    count = min(LANES, row.shape[0] - first)
    if count == LANES:
        for j in range(LANES):
            row[first + j] = values[j]
    else:
        for j in range(count):
            row[first + j] = values[j]


@njit(inline="always", fastmath=FASTMATH)
def _activate(step, bias, use_softplus):
    """Add the bias to a block of raw step sizes and apply softplus, in place."""
    for j in range(LANES):
        step[j] += bias[j]
    if use_softplus:
        for j in range(LANES):
            step[j] = softplus(step[j])


@_kernel
def scan_forward(
    first_task, last_task, u, delta, A, B, C, D, z, bias, initial,
    use_softplus, reverse, chunk, out, borders, last
):  # fmt: skip
    """Task = sequence x channel block. Writes out, the state after every inner chunk, and the last.

    borders (b, ceil(l / chunk) - 1, n, d): the state with which each chunk but the first begins,
    in scanning order.
    """
    wide_vectors()
    length, width = u.shape[1], u.shape[2]
    n = A.shape[0]
    blocks = (width + LANES - 1) // LANES
    h = np.empty((n, LANES), np.float32)
    a2 = np.empty((n, LANES), np.float32)
    d_skip = np.zeros(LANES, np.float32)
    shift = np.zeros(LANES, np.float32)
    step = np.empty(LANES, np.float32)
    x = np.empty(LANES, np.float32)
    y = np.empty(LANES, np.float32)
    for task in range(first_task, last_task):
        i = task // blocks
        c = (task % blocks) * LANES
        for s in range(n):
            _load(A[s], c, a2[s])
            for j in range(LANES):
                a2[s, j] *= LOG2_E
                h[s, j] = _ZERO
            if initial.size > 0:
                _load(initial[i, s], c, h[s])
        if D.size > 0:
            _load(D, c, d_skip)
        if bias.size > 0:
            _load(bias, c, shift)
        for k in range(length):
            t = length - 1 - k if reverse else k
            if k > 0 and k % chunk == 0:
                for s in range(n):
                    _store(h[s], borders[i, k // chunk - 1, s], c)
            _load(delta[i, t], c, step)
            _load(u[i, t], c, x)
            _activate(step, shift, use_softplus)
            for j in range(LANES):
                y[j] = d_skip[j] * x[j]
                x[j] *= step[j]
            for s in range(n):
                b_t = B[i, t, s]
                c_t = C[i, t, s]
                for j in range(LANES):
                    value = exp2(step[j] * a2[s, j]) * h[s, j] + x[j] * b_t
                    h[s, j] = value
                    y[j] += value * c_t
            if z.size > 0:
                _load(z[i, t], c, x)
                for j in range(LANES):
                    y[j] *= x[j] * sigmoid(x[j])
            _store(y, out[i, t], c)
        for s in range(n):
            _store(h[s], last[i, s], c)


@_kernel
def scan_backward(
    first_task, last_task, groups, grad_out, grad_last,
    u, delta, A, B, C, D, z, bias, initial, borders,
    use_softplus, reverse, chunk,
    du, ddelta, dA, dB, dC, dD, dz, dinitial,
):  # fmt: skip
    """Task = group of sequences x channel block. Recomputes each chunk from its border state.

    What is summed over sequences or over channels is summed here as far as one task reaches, and
    by the caller over dA, dD (groups, ...) and dB, dC (blocks, b, l, n).
    """
    wide_vectors()
    batch, length, width = u.shape
    n = A.shape[0]
    blocks = (width + LANES - 1) // LANES
    span = min(chunk, length)
    states = np.empty((span + 1, n, LANES), np.float32)
    decay = np.empty((span, n, LANES), np.float32)
    steps = np.empty((span, LANES), np.float32)
    inputs = np.empty((span, LANES), np.float32)
    g = np.empty((n, LANES), np.float32)
    a = np.empty((n, LANES), np.float32)
    da = np.empty((n, LANES), np.float32)
    d_skip = np.zeros(LANES, np.float32)
    dd_skip = np.empty(LANES, np.float32)
    shift = np.zeros(LANES, np.float32)
    gate = np.empty(LANES, np.float32)
    gy = np.empty(LANES, np.float32)
    y = np.empty(LANES, np.float32)
    dx = np.empty(LANES, np.float32)
    dstep = np.empty(LANES, np.float32)
    for task in range(first_task, last_task):
        group = task // blocks
        block = task % blocks
        c = block * LANES
        for s in range(n):
            _load(A[s], c, a[s])
            for j in range(LANES):
                da[s, j] = _ZERO
        for j in range(LANES):
            dd_skip[j] = _ZERO
        if D.size > 0:
            _load(D, c, d_skip)
        if bias.size > 0:
            _load(bias, c, shift)
        for i in range(group * batch // groups, (group + 1) * batch // groups):
            for s in range(n):
                for j in range(LANES):
                    g[s, j] = _ZERO
                if grad_last.size > 0:
                    _load(grad_last[i, s], c, g[s])
            for part in range((length - 1) // chunk, -1, -1):
                start = part * chunk
                count = min(chunk, length - start)
                for s in range(n):
                    if part > 0:
                        _load(borders[i, part - 1, s], c, states[0, s])
                    elif initial.size > 0:
                        _load(initial[i, s], c, states[0, s])
                    else:
                        for j in range(LANES):
                            states[0, s, j] = _ZERO
                for k in range(count):
                    t = length - 1 - start - k if reverse else start + k
                    _load(delta[i, t], c, steps[k])
                    _load(u[i, t], c, inputs[k])
                    _activate(steps[k], shift, use_softplus)
                    for s in range(n):
                        b_t = B[i, t, s]
                        for j in range(LANES):
                            factor = exp2(steps[k, j] * (a[s, j] * LOG2_E))
                            decay[k, s, j] = factor
                            states[k + 1, s, j] = (
                                factor * states[k, s, j] + steps[k, j] * inputs[k, j] * b_t
                            )
                for k in range(count - 1, -1, -1):
                    t = length - 1 - start - k if reverse else start + k
                    _load(grad_out[i, t], c, gy)
                    if z.size > 0:
                        for j in range(LANES):
                            y[j] = d_skip[j] * inputs[k, j]
                        for s in range(n):
                            c_t = C[i, t, s]
                            for j in range(LANES):
                                y[j] += states[k + 1, s, j] * c_t
                        _load(z[i, t], c, gate)
                        for j in range(LANES):
                            open_ = sigmoid(gate[j])
                            y[j] *= gy[j] * open_ * (_ONE + gate[j] * (_ONE - open_))
                            gy[j] *= gate[j] * open_
                        _store(y, dz[i, t], c)
                    for j in range(LANES):
                        dx[j] = _ZERO
                        dstep[j] = _ZERO
                        dd_skip[j] += gy[j] * inputs[k, j]
                    for s in range(n):
                        b_t = B[i, t, s]
                        c_t = C[i, t, s]
                        db = _ZERO
                        dc = _ZERO
                        for j in range(LANES):
                            grad = g[s, j] + gy[j] * c_t
                            carried = grad * decay[k, s, j]
                            through = carried * states[k, s, j]
                            dc += gy[j] * states[k + 1, s, j]
                            db += grad * (steps[k, j] * inputs[k, j])
                            dx[j] += grad * b_t
                            dstep[j] += through * a[s, j]
                            da[s, j] += through * steps[k, j]
                            g[s, j] = carried
                        dB[block, i, t, s] = db
                        dC[block, i, t, s] = dc
                    for j in range(LANES):
                        dstep[j] += dx[j] * inputs[k, j]
                        dx[j] = dx[j] * steps[k, j] + d_skip[j] * gy[j]
                    if use_softplus:
                        for j in range(LANES):
                            dstep[j] *= sigmoid_from_softplus(steps[k, j])
                    _store(dx, du[i, t], c)
                    _store(dstep, ddelta[i, t], c)
            if initial.size > 0:
                for s in range(n):
                    _store(g[s], dinitial[i, s], c)
        for s in range(n):
            _store(da[s], dA[group, s], c)
        if D.size > 0:
            _store(dd_skip, dD[group], c)
