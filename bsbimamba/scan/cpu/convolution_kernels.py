"""The causal depthwise convolution with SiLU behind it, as numba kernels, forward and backward.

One pass over the data each: the convolution of a step is a few products, so that the time goes
into memory. Conventions as in `scan.cpu.scan_kernels`; weight is (r, taps, d), its last tap the
one of the present step.
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined, var-annotated"
from __future__ import annotations

from numba import njit

from bsbimamba.scan.cpu.kernel import kernel
from bsbimamba.scan.cpu.vectors import LANES, ONE, ZERO, fma, load, next_task, sigmoid, splat, store

# Channels of a task: enough to read a row in whole lines, few enough to share out one sequence.
BLOCK = 128


@njit(inline="always")
def _convolved(r, k, at, forth, taps, width, c, u, weight, bias):
    """Step k of the convolution, for the vector at channel c; forth is the way to the next step."""
    y = load(bias, r * width + c)
    for tap in range(max(0, taps - 1 - k), taps):
        x = load(u, at - (taps - 1 - tap) * forth)
        y = fma(load(weight, (r * taps + tap) * width + c), x, y)
    return y


@kernel
def conv_forward(counter, tasks, shape, of_u, of_y, u, weight, bias, reverse, out):
    """Task = direction x sequence x channel block. Writes out (r, b, l, d), of strides
    of_y."""
    _, batch, length, width, taps = shape
    blocks = (width + BLOCK - 1) // BLOCK
    while True:
        task = next_task(counter)
        if task >= tasks:
            break
        row = task // blocks
        first = task % blocks * BLOCK
        last = min(first + BLOCK, width)
        r = row // batch
        i = row % batch
        away = -1 if reverse != (r == 1) else 1
        for t in range(length):
            k = length - 1 - t if away < 0 else t
            u_t = r * of_u[0] + i * of_u[1] + t * of_u[2]
            out_t = r * of_y[0] + i * of_y[1] + t * of_y[2]
            for c in range(first, last, LANES):
                y = _convolved(r, k, u_t + c, away * of_u[2], taps, width, c, u, weight, bias)
                store(out, out_t + c, y * sigmoid(y))


@kernel
def conv_backward(
    counter, tasks, groups, shape, of_u, of_out, of_y, grad_out, u, weight, bias, reverse,
    du, dweight, dbias, scratch,
):  # fmt: skip
    """Task = direction x group of sequences x channel block. Writes du (r, b, l, d), of strides
    of_y, and dweight (r, groups, taps, d) and dbias (r, groups, d) for the caller to sum over
    groups. scratch (r, groups, taps, d) holds the gradients before SiLU of the last steps."""
    _, batch, length, width, taps = shape
    blocks = (width + BLOCK - 1) // BLOCK
    while True:
        task = next_task(counter)
        if task >= tasks:
            break
        place = task // blocks  # of direction and group
        first = task % blocks * BLOCK
        last = min(first + BLOCK, width)
        r = place // groups
        group = place % groups
        away = -1 if reverse != (r == 1) else 1
        for c in range(first, last, LANES):
            store(dbias, place * width + c, splat(ZERO))
            for tap in range(taps):
                store(dweight, (place * taps + tap) * width + c, splat(ZERO))
        for i in range(group * batch // groups, (group + 1) * batch // groups):
            # Against the order of the convolution: du of a step needs the gradients of those after.
            for k in range(length - 1, -1, -1):
                t = length - 1 - k if away < 0 else k
                u_t = r * of_u[0] + i * of_u[1] + t * of_u[2]
                grad_t = r * of_out[0] + i * of_out[1] + t * of_out[2]
                for c in range(first, last, LANES):
                    y = _convolved(r, k, u_t + c, away * of_u[2], taps, width, c, u, weight, bias)
                    opened = sigmoid(y)
                    g = load(grad_out, grad_t + c)
                    g *= opened * fma(y, splat(ONE) - opened, splat(ONE))
                    store(scratch, (place * taps + k % taps) * width + c, g)
                    store(dbias, place * width + c, g + load(dbias, place * width + c))
                    for tap in range(max(0, taps - 1 - k), taps):
                        back = away * (taps - 1 - tap)
                        at = (place * taps + tap) * width + c
                        x = load(u, u_t - back * of_u[2] + c)
                        store(dweight, at, fma(g, x, load(dweight, at)))
                    dx = splat(ZERO)
                    for tap in range(max(0, taps - length + k), taps):
                        later = k + taps - 1 - tap
                        g = load(scratch, (place * taps + later % taps) * width + c)
                        dx = fma(load(weight, (r * taps + tap) * width + c), g, dx)
                    store(du, r * of_y[0] + i * of_y[1] + t * of_y[2] + c, dx)
