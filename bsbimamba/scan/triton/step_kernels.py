"""What the Triton kernels do at every step: functions, loads, a state advanced, sums over lanes.

The state of a block of channels is a tuple of N vectors, one for each state index. Offsets of
sequences and steps are 64-bit. Notation as in `scan.cpu.scan_kernels`. Everything is computed in
float32, and NaN inputs give NaN outputs.
"""

# mypy: disable-error-code="no-untyped-def, index, assignment"
from __future__ import annotations

import triton
import triton.language as tl

from bsbimamba.scan.cpu.vectors import LOG1P, SERIES, SERIES_LIMIT

_LOG1P = tl.constexpr(LOG1P)
_SERIES = tl.constexpr(SERIES)
_SERIES_LIMIT = tl.constexpr(SERIES_LIMIT)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def softplus(x):
    """log(1 + exp(x)); tl.log has no digits left where exp(x) is small."""
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    q = e * _LOG1P[7] + _LOG1P[6]
    for i in tl.static_range(6):
        q = q * e + _LOG1P[5 - i]
    return tl.maximum(x, 0.0) + e * (q * e + 1.0)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def sigmoid_from_softplus(y):
    """sigmoid(x) = 1 - exp(-y) for y = softplus(x); for a small y by its series, which keeps it."""
    series = _SERIES[3] - y * _SERIES[4]
    series = _SERIES[2] - y * series
    series = _SERIES[1] - y * series
    series = _SERIES[0] - y * series
    small = y * (1.0 - y * series)
    return tl.where(y < _SERIES_LIMIT, small, 1.0 - tl.exp2(-y * LOG2_E))


@triton.jit
def start_of(array, strides, r, i):
    """Where sequence i of direction r begins."""
    return array + r * strides[0] + i * strides[1]


@triton.jit
def step_size(delta, bias, d, mask, SOFTPLUS: tl.constexpr):
    step = tl.load(delta + d, mask=mask, other=0.0).to(tl.float32) + bias
    if SOFTPLUS:
        step = softplus(step)
    return step


@triton.jit
def load_state(pointer, width, mask, PRESENT: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):
    """A state (n, width) as N vectors of channels; zeros where it is absent."""
    h = ()
    for s in tl.static_range(N):
        if PRESENT:
            h = h + (tl.load(pointer + s * width, mask=mask, other=0.0),)
        else:
            h = h + (tl.zeros([BLOCK], tl.float32),)
    return h


@triton.jit
def store_state(pointer, width, mask, h, N: tl.constexpr):
    for s in tl.static_range(N):
        tl.store(pointer + s * width, h[s], mask=mask)


@triton.jit
def decay_of(exponent, SOFTPLUS: tl.constexpr):
    """2**exponent. Where it can overflow, only so much that a state of zero stays at zero; a NaN
    fails the comparison and is passed on."""
    if not SOFTPLUS:
        exponent = tl.where(exponent > 127.0, 127.0, exponent)
    return tl.exp2(exponent)


@triton.jit
def rates_of(A, width, mask, N: tl.constexpr):
    """A to the base of exp2."""
    a2 = ()
    for s in tl.static_range(N):
        a2 = a2 + (tl.load(A + s * width, mask=mask, other=0.0) * LOG2_E,)
    return a2


@triton.jit
def time_of(k, length, backwards):
    """Which step is the k-th in scanning order."""
    return tl.where(backwards, length - 1 - k, k).to(tl.int64)


@triton.jit
def walk(
    h, a2, u, delta, z, out, bc, of_u, of_delta, of_z, of_y,
    first, length, backwards, shift, skip, d, mask, SOFTPLUS: tl.constexpr,
    HAS_Z: tl.constexpr, WRITE: tl.constexpr, N: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The state COUNT steps later; if WRITE, the outputs of the steps are stored.

    What the steps need is loaded for all of them at once, and stores come behind all loads: no load
    may overtake a store, and a warp would wait for memory at every step.
    """
    steps, xs, gates, ys = (), (), (), ()
    for j in tl.static_range(COUNT):
        t = time_of(first + j, length, backwards)
        steps = steps + (step_size(delta + t * of_delta[2], shift, d, mask, SOFTPLUS),)
        xs = xs + (tl.load(u + t * of_u[2] + d, mask=mask, other=0.0).to(tl.float32),)
        if WRITE and HAS_Z:
            gates = gates + (tl.load(z + t * of_z[2] + d, mask=mask, other=0.0).to(tl.float32),)
    for j in tl.static_range(COUNT):
        here = bc + j * 2 * N
        driven = steps[j] * xs[j]  # type: ignore[var-annotated]
        later = ()
        for s in tl.static_range(N):
            decayed = decay_of(steps[j] * a2[s], SOFTPLUS) * h[s]
            later = later + (decayed + driven * tl.load(here + s),)
        h = later
        if WRITE:
            y = skip * xs[j]
            for s in tl.static_range(N):
                y += h[s] * tl.load(here + N + s)
            if HAS_Z:
                y *= gates[j] * sigmoid(gates[j])
            ys = ys + (y,)
    if WRITE:
        for j in tl.static_range(COUNT):
            tl.store(out + time_of(first + j, length, backwards) * of_y[2] + d, ys[j], mask=mask)
    return h


@triton.jit
def sum_over_lanes(values, lanes, COUNT: tl.constexpr):
    """The sums of COUNT (a power of 2) vectors of channels, as one vector over the 32 lanes.

    Lane l holds the sum of vector l * COUNT // 32. In each level a lane gives away one half of what
    it has and is given its share of the other: 31 exchanges at most, where to sum each vector for
    itself would take five a vector.
    """
    for level in tl.static_range(5):
        partner = lanes ^ (16 >> level)
        if COUNT >> level > 1:
            upper = lanes > partner
            folded = ()
            for i in tl.static_range(COUNT >> (level + 1)):
                low, high = values[i], values[i + (COUNT >> (level + 1))]
                given = tl.gather(tl.where(upper, low, high), partner, 0)
                folded = folded + (tl.where(upper, high, low) + given,)
            values = folded
        else:
            values = (values[0] + tl.gather(values[0], partner, 0),)
    return values[0]
