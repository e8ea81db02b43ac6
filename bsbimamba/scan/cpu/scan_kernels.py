"""The selective scan's numba kernels, forward and backward.

Both walk the sequence step by step for sixteen channels at a time, one vector, whose states are in
the first-level cache. Neither starts threads: each takes numbers of independent tasks from a
counter until none is left, and `share_out` calls it on every thread. A task writes to places of its
own, so the result does not depend on who did it.

All arrays are flat. Of what the user gives, u, delta, B, C, z and the output's gradient may be
float32 or bfloat16 (as uint16); they, and what is written in the shape of u, come with their
strides over direction, sequence and step. All else is contiguous float32. States are (states,
width). An absent argument is an array of size 0, but for D and bias. The width is a multiple of 16.
Notation as in Gu and Dao, "Mamba", 2023, section 2 and algorithm 2:
    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t,    out_t = y_t silu(z_t)
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from bsbimamba.scan.cpu.kernel import kernel
from bsbimamba.scan.cpu.vectors import (
    FINITE,
    LANES,
    LOG2_E,
    ONE,
    ZERO,
    exp2,
    fma,
    load,
    load_scalar,
    next_task,
    prefetch,
    row_totals,
    sigmoid,
    sigmoid_from_softplus,
    softplus,
    splat,
    store,
)

# Channels whose gradients with respect to B and C are summed inside one task of the backward pass.
BLOCK = 64
# Rows are 1.5 KB apart in the usual width, too far for the hardware to fetch them ahead reliably:
# without this, and with data in main memory, the scan took up to three times as long.
_AHEAD = 4


@njit(inline="always")
def scratch(size):
    """Uninitialised floats from the start of a cache line: a vector across two is slow to read."""
    raw = np.empty(size + LANES, np.float32)
    first = (-(raw.ctypes.data >> 2)) & (LANES - 1)
    return raw[first : first + size]


@njit(inline="always")
def copy_state(n, source, at, width, h):
    """Copy a vector's states from an array (..., n, width) to scratch (n, 16); zeros if absent."""
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
def _step_size(delta, at, shift, use_softplus):
    step = load(delta, at) + shift
    if use_softplus:
        step = softplus(step)
    return step


@kernel
def scan_forward(
    counter, tasks, shape, strides, u, delta, A, B, C, D, z, bias, initial,
    use_softplus, reverse, chunk, out, last, borders,
):  # fmt: skip
    """Task = direction x sequence x sixteen channels.

    shape: directions, sequences, length, width, states. strides: of u, delta, B, C, z, out. A is
    (directions, states, width). Writes out (r, b, l, d), the last state (r, b, n, d), and the
    state with which each chunk but the first begins, in scanning order: borders (r, b, m, n, d).
    """
    _, batch, length, width, n = shape
    of_u, of_delta, of_b, of_c, of_z, of_y = strides
    parts = width // LANES
    inner = (length - 1) // chunk
    a2 = scratch(n * LANES)
    h = scratch(n * LANES)
    while True:
        task = next_task(counter)
        if task >= tasks:
            break
        row = task // parts
        r = row // batch
        i = row % batch
        c = task % parts * LANES
        backwards = reverse != (r == 1)
        towards = -1 if backwards else 1
        copy_state(n, A, r * n * width + c, width, a2)
        for s in range(n):
            store(a2, s * LANES, load(a2, s * LANES) * splat(LOG2_E))
        copy_state(n, initial, row * n * width + c, width, h)
        skip, shift = load(D, r * width + c), load(bias, r * width + c)
        for k in range(length):
            t = length - 1 - k if backwards else k
            if k > 0 and k % chunk == 0:
                at = (row * inner + k // chunk - 1) * n * width + c
                keep_state(n, h, borders, at, width)
            u_t = r * of_u[0] + i * of_u[1] + t * of_u[2] + c
            delta_t = r * of_delta[0] + i * of_delta[1] + t * of_delta[2] + c
            z_t = r * of_z[0] + i * of_z[1] + t * of_z[2] + c
            b_t = r * of_b[0] + i * of_b[1] + t * of_b[2]
            c_t = r * of_c[0] + i * of_c[1] + t * of_c[2]
            away = min(_AHEAD, length - 1 - k) * towards
            prefetch(u, u_t + away * of_u[2])
            prefetch(delta, delta_t + away * of_delta[2])
            x = load(u, u_t)
            step = _step_size(delta, delta_t, shift, use_softplus)
            y = skip * x
            x *= step
            for s in range(n):
                value = x * splat(load_scalar(B, b_t + s))
                value = fma(exp2(step * load(a2, s * LANES), FINITE), load(h, s * LANES), value)
                store(h, s * LANES, value)
                y = fma(value, splat(load_scalar(C, c_t + s)), y)
            if z.size > 0:
                prefetch(z, z_t + away * of_z[2])
                gate = load(z, z_t)
                y *= gate * sigmoid(gate)
            store(out, r * of_y[0] + i * of_y[1] + t * of_y[2] + c, y)
        if last.size > 0:
            keep_state(n, h, last, row * n * width + c, width)


@kernel
def scan_backward(
    counter, tasks, groups, shape, strides, grad_out, grad_last,
    u, delta, A, B, C, D, z, bias, initial, borders, use_softplus, reverse, chunk,
    du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial, out,
):  # fmt: skip
    """Task = direction x group of sequences x channel block. Recomputes each chunk from its border.

    What is summed over sequences or channels is summed here as far as one task reaches, and by the
    caller over dA, dD, dbias (r, groups, ...) and dB, dC (blocks, r, b, l, m), where m is n in
    whole vectors. strides: of u, delta, B, C, z and grad_out, and those that du, ddelta, dz and out
    share. out: the forward pass' output again, where it is wanted.
    """
    _, batch, length, width, n = shape
    of_u, of_delta, of_b, of_c, of_z, of_out, of_y = strides
    blocks = (width + BLOCK - 1) // BLOCK
    inner = (length - 1) // chunk
    span = min(chunk, length)
    m = (n + LANES - 1) // LANES * LANES
    # One vector of channels at a time, so that what a step reads again is in the first-level cache.
    state = n * LANES
    states = scratch((span + 1) * state)
    decays = scratch(span * state)
    steps = scratch(span * LANES)
    inputs = scratch(span * LANES)
    a, a2, da, g = scratch(state), scratch(state), scratch(state), scratch(state)
    from_b, from_c = scratch(m * LANES), scratch(m * LANES)
    for k in range(n, m):
        store(from_b, k * LANES, splat(ZERO))
        store(from_c, k * LANES, splat(ZERO))
    while True:
        task = next_task(counter)
        if task >= tasks:
            break
        r = task // (groups * blocks)
        group = task // blocks % groups
        block = task % blocks
        backwards = reverse != (r == 1)
        towards = -1 if backwards else 1
        for c in range(block * BLOCK, min((block + 1) * BLOCK, width), LANES):
            copy_state(n, A, r * n * width + c, width, a)
            for s in range(n):
                # Rounded as in the forward pass, so that states and output are its own to the bit.
                store(a2, s * LANES, load(a, s * LANES) * splat(LOG2_E))
                store(da, s * LANES, splat(ZERO))
            skip, shift = load(D, r * width + c), load(bias, r * width + c)
            d_skip = splat(ZERO)
            d_shift = splat(ZERO)
            for i in range(group * batch // groups, (group + 1) * batch // groups):
                row = r * batch + i
                copy_state(n, grad_last, row * n * width + c, width, g)
                for part in range(inner, -1, -1):
                    start = part * chunk
                    count = min(chunk, length - start)
                    if part > 0:
                        at = (row * inner + part - 1) * n * width + c
                        copy_state(n, borders, at, width, states)
                    else:
                        copy_state(n, initial, row * n * width + c, width, states)
                    for k in range(count):
                        t = length - 1 - start - k if backwards else start + k
                        b_t = r * of_b[0] + i * of_b[1] + t * of_b[2]
                        u_t = r * of_u[0] + i * of_u[1] + t * of_u[2] + c
                        delta_t = r * of_delta[0] + i * of_delta[1] + t * of_delta[2] + c
                        away = min(_AHEAD, count - 1 - k) * towards
                        prefetch(u, u_t + away * of_u[2])
                        prefetch(delta, delta_t + away * of_delta[2])
                        x = load(u, u_t)
                        step = _step_size(delta, delta_t, shift, use_softplus)
                        store(inputs, k * LANES, x)
                        store(steps, k * LANES, step)
                        x *= step
                        for s in range(n):
                            at = k * state + s * LANES
                            decay = exp2(step * load(a2, s * LANES), FINITE)
                            store(decays, at, decay)
                            value = x * splat(load_scalar(B, b_t + s))
                            value = fma(decay, load(states, at), value)
                            store(states, at + state, value)
                    for k in range(count - 1, -1, -1):
                        t = length - 1 - start - k if backwards else start + k
                        b_t = r * of_b[0] + i * of_b[1] + t * of_b[2]
                        c_t = r * of_c[0] + i * of_c[1] + t * of_c[2]
                        z_t = r * of_z[0] + i * of_z[1] + t * of_z[2] + c
                        grad_t = r * of_out[0] + i * of_out[1] + t * of_out[2] + c
                        out_t = r * of_y[0] + i * of_y[1] + t * of_y[2] + c
                        away = -min(_AHEAD, k) * towards
                        prefetch(grad_out, grad_t + away * of_out[2])
                        prefetch(du, out_t + away * of_y[2])
                        prefetch(ddelta, out_t + away * of_y[2])
                        x = load(inputs, k * LANES)
                        step = load(steps, k * LANES)
                        gy = load(grad_out, grad_t)
                        slope = splat(ZERO)
                        opening = splat(ONE)
                        if z.size > 0:
                            prefetch(z, z_t + away * of_z[2])
                            prefetch(dz, out_t + away * of_y[2])
                            gate = load(z, z_t)
                            opened = sigmoid(gate)
                            slope = gy * opened * fma(gate, splat(ONE) - opened, splat(ONE))
                            opening = gate * opened
                            gy *= opening
                        d_skip = fma(gy, x, d_skip)
                        driven = step * x
                        y = skip * x
                        dx = splat(ZERO)
                        dstep = splat(ZERO)
                        for s in range(n):
                            at = k * state + s * LANES
                            c_s = splat(load_scalar(C, c_t + s))
                            after = load(states, at + state)
                            y = fma(after, c_s, y)
                            grad = fma(gy, c_s, load(g, s * LANES))
                            carried = grad * load(decays, at)
                            store(g, s * LANES, carried)
                            through = carried * load(states, at)
                            store(da, s * LANES, fma(through, step, load(da, s * LANES)))
                            dstep = fma(through, load(a, s * LANES), dstep)
                            dx = fma(grad, splat(load_scalar(B, b_t + s)), dx)
                            store(from_b, s * LANES, grad * driven)
                            store(from_c, s * LANES, gy * after)
                        if z.size > 0:
                            store(dz, out_t, y * slope)
                        if out.size > 0:
                            store(out, out_t, y * opening)
                        dstep = fma(dx, x, dstep)
                        if use_softplus:
                            dstep *= sigmoid_from_softplus(step)
                        d_shift += dstep
                        store(ddelta, out_t, dstep)
                        store(du, out_t, fma(dx, step, skip * gy))
                        at = ((block * shape[0] * batch + row) * length + t) * m
                        for s in range(0, m, LANES):
                            db = row_totals(from_b, s * LANES)
                            dc = row_totals(from_c, s * LANES)
                            if c > block * BLOCK:
                                db += load(dB, at + s)
                                dc += load(dC, at + s)
                            store(dB, at + s, db)
                            store(dC, at + s, dc)
                if dinitial.size > 0:
                    keep_state(n, g, dinitial, row * n * width + c, width)
            at = (r * groups + group) * width + c
            keep_state(n, da, dA, (r * groups + group) * n * width + c, width)
            store(dD, at, d_skip)
            store(dbias, at, d_shift)
