"""The selective scan's Triton kernels, forward and backward, both directions in one launch.

A program owns a block of channels of one sequence in one direction and walks it step by step, so
that a short sequence wastes nothing. Channels lie across the lanes of one warp and the states of a
channel in registers of its lane: sums over states need no exchange between lanes. There are no
atomics; what is summed over programs is summed by the caller, always in the same order.

Offsets of sequences and steps are 64-bit. Notation as in `scan.cpu.scan_kernels`. A kernel works in
float32, whatever the dtypes of the arrays.
"""

# mypy: disable-error-code="no-untyped-def, index, assignment, var-annotated"
from __future__ import annotations

import triton
import triton.language as tl

from bsbimamba.scan.triton.step_kernels import (
    LOG2_E,
    decay_of,
    load_state,
    rates_of,
    sigmoid,
    sigmoid_from_softplus,
    start_of,
    step_size,
    store_state,
    sum_over_lanes,
    time_of,
    walk,
)


@triton.jit
def scan_forward(
    u, delta, A, BC, D, z, bias, initial, out, last, borders,
    of_u, of_delta, of_z, of_y, batch, length, width,
    CHUNK: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_INITIAL: tl.constexpr, WANT_LAST: tl.constexpr,
    N: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Program = direction x sequence x channel block. BC (r, b, l, 2, n) is in scanning order.
    Outputs as in `scan.interface`, but for the last state, (r, b, n, d)."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    d = program % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = d < width
    row = (program // blocks).to(tl.int64)
    r = row // batch
    i = row % batch
    backwards = (r == 1) != REVERSE
    u, delta, z = start_of(u, of_u, r, i), start_of(delta, of_delta, r, i), start_of(z, of_z, r, i)
    bc = BC + row * length * 2 * N
    out = start_of(out, of_y, r, i)
    borders += row * ((length - 1) // CHUNK) * N * width + d
    a2 = rates_of(A + r * N * width + d, width, mask, N)
    h = load_state(initial + row * N * width + d, width, mask, HAS_INITIAL, N, BLOCK)
    skip = tl.load(D + r * width + d, mask=mask, other=0.0)
    shift = tl.load(bias + r * width + d, mask=mask, other=0.0)
    for part in range((length - 1) // CHUNK + 1):
        if part > 0:
            store_state(borders, width, mask, h, N)
            borders += N * width
        stop = tl.minimum((part + 1) * CHUNK, length)
        whole = stop - (stop - part * CHUNK) % TILE
        for first in range(part * CHUNK, whole, TILE):
            h = walk(
                h, a2, u, delta, z, out, bc, of_u, of_delta, of_z, of_y,
                first, length, backwards, shift, skip, d, mask, SOFTPLUS, HAS_Z, True, N, TILE,
            )  # fmt: skip
            bc += TILE * 2 * N
        for first in range(whole, stop):
            h = walk(
                h, a2, u, delta, z, out, bc, of_u, of_delta, of_z, of_y,
                first, length, backwards, shift, skip, d, mask, SOFTPLUS, HAS_Z, True, N, 1,
            )  # fmt: skip
            bc += 2 * N
    if WANT_LAST:
        store_state(last + row * N * width + d, width, mask, h, N)


@triton.jit
def scan_backward(
    grad_out, grad_last, u, delta, A, BC, D, z, bias, initial, borders,
    du, ddelta, dA, dBC, dD, dz, dbias, dinitial, out, scratch, carry,
    of_u, of_delta, of_z, of_out, of_y, directions, batch, length, width, groups,
    CHUNK: tl.constexpr, REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_INITIAL: tl.constexpr, HAS_LAST: tl.constexpr, WANT_OUT: tl.constexpr,
    N: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Program = direction x group of sequences x channel block.

    Per chunk: walk from its border and put down the state before every tile of TILE steps
    (scratch (r, groups, tiles, n, d)); then take the tiles from the last to the first, and in a
    tile one state index at a time, with the tile's decays and states in registers. The gradient of
    the state is handed from tile to tile in carry (r, groups, n, d).
    Sums over programs are left to the caller: dA (r, groups, n, d), which comes zeroed; dD, dbias
    (r, groups, d); dBC (blocks, r, b, l, 2, n), in scanning order as BC is. du, ddelta, dz and out
    (the forward pass' output again) share the strides of_y.
    """
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    block = program % blocks
    d = block * BLOCK + tl.arange(0, BLOCK)
    mask = d < width
    place = (program // blocks).to(tl.int64)  # of direction and group
    r = place // groups
    group = place % groups
    backwards = (r == 1) != REVERSE
    inner = (length - 1) // CHUNK
    scratch += place * tl.cdiv(tl.minimum(length, CHUNK), TILE) * N * width + d
    carry += place * N * width + d
    dA += place * N * width + d
    A += r * N * width + d
    skip = tl.load(D + r * width + d, mask=mask, other=0.0)
    shift = tl.load(bias + r * width + d, mask=mask, other=0.0)
    d_skip = tl.zeros([BLOCK], tl.float32)
    d_shift = tl.zeros([BLOCK], tl.float32)
    # Which gradient of B or C a lane stores, see `sum_over_lanes`.
    lanes = tl.arange(0, 32)
    number = lanes * (2 * TILE) // 32
    step_of_sum = number % TILE
    place_of_sum = step_of_sum * 2 * N + number // TILE * N
    for i in range(group * batch // groups, (group + 1) * batch // groups):
        row = r * batch + i
        u_i, delta_i = start_of(u, of_u, r, i), start_of(delta, of_delta, r, i)
        z_i, grad_i = start_of(z, of_z, r, i), start_of(grad_out, of_out, r, i)
        zero = row * 0  # what is added to it is 64-bit
        bc_i = BC + row * length * 2 * N
        dbc_i = dBC + (block.to(tl.int64) * directions * batch + row) * length * 2 * N
        states = row * N * width + d
        tl.debug_barrier()
        for m in range(N):
            g = tl.zeros([BLOCK], tl.float32)
            if HAS_LAST:
                g = tl.load(grad_last + states + m * width, mask=mask, other=0.0)
            tl.store(carry + m * width, g, mask=mask)
        for back in range(inner + 1):
            part = inner - back
            start = part * CHUNK
            count = tl.minimum(CHUNK, length - start)
            tiles = tl.cdiv(count, TILE)
            # Loaded anew in every chunk, or they would fill the registers of the tiles below.
            a2 = rates_of(A, width, mask, N)
            h = load_state(initial + states, width, mask, HAS_INITIAL, N, BLOCK)
            if part > 0:
                at = (row * inner + part - 1) * N * width + d
                h = load_state(borders + at, width, mask, True, N, BLOCK)
            # The barriers keep writing and reading of scratch and carry apart between lanes.
            tl.debug_barrier()
            for tile in range(tiles - 1):
                store_state(scratch + (zero + tile) * N * width, width, mask, h, N)
                first = start + tile * TILE
                bc = bc_i + (zero + first) * 2 * N
                h = walk(
                    h, a2, u_i, delta_i, z_i, z_i, bc, of_u, of_delta, of_z, of_z,
                    first, length, backwards, shift, skip, d, mask, SOFTPLUS, HAS_Z, False, N, TILE,
                )  # fmt: skip
            store_state(scratch + (zero + tiles - 1) * N * width, width, mask, h, N)
            for down in range(tiles):
                tl.debug_barrier()
                tile = tiles - 1 - down
                first = start + tile * TILE
                inside = count - tile * TILE
                # Behind the end nothing moves: a step of length zero. What is loaded in vain there
                # lies within the arrays.
                steps, drivens, gys = (), (), ()
                dxs, dsteps, ys = (), (), ()
                for j in tl.static_range(TILE):
                    k = tl.minimum(first + j, length - 1)
                    t = time_of(k, length, backwards)
                    here = mask & (tl.zeros_like(d) + j < inside)
                    step = step_size(delta_i + t * of_delta[2], shift, d, here, SOFTPLUS)
                    step = tl.where(here, step, 0.0)
                    x = tl.load(u_i + t * of_u[2] + d, mask=here, other=0.0).to(tl.float32)
                    gy = tl.load(grad_i + t * of_out[2] + d, mask=here, other=0.0).to(tl.float32)
                    if HAS_Z:
                        gate = tl.load(z_i + t * of_z[2] + d, mask=here, other=0.0).to(tl.float32)
                        gy *= gate * sigmoid(gate)
                    d_skip += gy * x
                    steps, drivens, gys = steps + (step,), drivens + (step * x,), gys + (gy,)
                    ys, dxs = ys + (skip * x,), dxs + (tl.zeros([BLOCK], tl.float32),)
                    dsteps = dsteps + (tl.zeros([BLOCK], tl.float32),)
                bc = bc_i + (zero + first) * 2 * N
                dbc = dbc_i + (zero + first) * 2 * N
                for m in range(N):
                    a = tl.load(A + m * width, mask=mask, other=0.0)
                    after = tl.load(scratch + ((zero + tile) * N + m) * width, mask=mask, other=0.0)
                    g = tl.load(carry + m * width, mask=mask, other=0.0)
                    da = tl.load(dA + m * width, mask=mask, other=0.0)
                    a_log2 = a * LOG2_E
                    decays, hs = (), (after,)
                    for j in tl.static_range(TILE):
                        decay = decay_of(steps[j] * a_log2, SOFTPLUS)
                        b = tl.load(bc + j * 2 * N, j < inside, 0.0)
                        after = decay * after + drivens[j] * b
                        decays, hs = decays + (decay,), hs + (after,)
                    new_dxs, new_dsteps, new_ys = (), (), ()
                    dbs, dcs = (), ()
                    for j in tl.static_range(TILE - 1, -1, -1):
                        b = tl.load(bc + j * 2 * N, j < inside, 0.0)
                        c = tl.load(bc + j * 2 * N + N, j < inside, 0.0)
                        grad = g + gys[j] * c
                        g = grad * decays[j]
                        through = g * hs[j]
                        da += through * steps[j]
                        new_dxs = (dxs[j] + grad * b,) + new_dxs
                        new_dsteps = (dsteps[j] + through * a,) + new_dsteps
                        new_ys = (ys[j] + hs[j + 1] * c,) + new_ys
                        db, dc = grad * drivens[j], gys[j] * hs[j + 1]
                        dbs = (tl.sum(tl.reshape(db, [32, BLOCK // 32]), 1),) + dbs
                        dcs = (tl.sum(tl.reshape(dc, [32, BLOCK // 32]), 1),) + dcs
                    dxs, dsteps, ys = new_dxs, new_dsteps, new_ys
                    both = sum_over_lanes(dbs + dcs, lanes, 2 * TILE)
                    tl.store(dbc + place_of_sum, both, mask=step_of_sum < inside)
                    tl.store(carry + m * width, g, mask=mask)
                    tl.store(dA + m * width, da, mask=mask)
                    bc += 1
                    dbc += 1
                for j in tl.static_range(TILE):
                    k = tl.minimum(first + j, length - 1)
                    t = time_of(k, length, backwards)
                    here = mask & (tl.zeros_like(d) + j < inside)
                    x = tl.load(u_i + t * of_u[2] + d, mask=here, other=0.0).to(tl.float32)
                    at = r * of_y[0] + i * of_y[1] + t * of_y[2] + d
                    dstep = dsteps[j] + dxs[j] * x
                    if SOFTPLUS:
                        dstep *= sigmoid_from_softplus(steps[j])
                    d_shift += tl.where(here, dstep, 0.0)
                    tl.store(ddelta + at, dstep, mask=here)
                    tl.store(du + at, dxs[j] * steps[j] + skip * gys[j], mask=here)
                    y = ys[j]
                    if HAS_Z:
                        gate = tl.load(z_i + t * of_z[2] + d, mask=here, other=0.0).to(tl.float32)
                        grad = tl.load(grad_i + t * of_out[2] + d, mask=here, other=0.0)
                        opened = sigmoid(gate)
                        slope = opened * (1.0 + gate * (1.0 - opened))
                        tl.store(dz + at, y * grad.to(tl.float32) * slope, mask=here)
                        y *= gate * opened
                    if WANT_OUT:
                        tl.store(out + at, y, mask=here)
        if HAS_INITIAL:
            tl.debug_barrier()
            for m in range(N):
                g = tl.load(carry + m * width, mask=mask, other=0.0)
                tl.store(dinitial + states + m * width, g, mask=mask)
    tl.store(dD + place * width + d, d_skip, mask=mask)
    tl.store(dbias + place * width + d, d_shift, mask=mask)
