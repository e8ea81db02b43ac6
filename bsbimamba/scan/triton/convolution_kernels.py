"""The causal depthwise convolution with SiLU behind it, as Triton kernels, forward and backward.

A program walks one segment of one sequence for a block of channels, with the inputs of the last
steps in registers, so that every input is read once. Conventions as in `scan.triton.scan_kernels`.
"""

# mypy: disable-error-code="no-untyped-def, index, assignment"
from __future__ import annotations

import triton
import triton.language as tl

from bsbimamba.scan.triton.step_kernels import sigmoid, start_of, time_of


@triton.jit
def _load_taps(weight, r, d, width, mask, TAPS: tl.constexpr):
    taps = ()
    for i in tl.static_range(TAPS):
        taps = taps + (tl.load(weight + (r * TAPS + i) * width + d, mask=mask, other=0.0),)
    return taps


@triton.jit
def _load_step(x, strides, k, length, backwards, d, mask):
    """The k-th step of x in scanning order for channels d; zeros outside of the sequence."""
    here = mask & (tl.zeros_like(d) + k >= 0) & (tl.zeros_like(d) + k < length)
    t = time_of(k, length, backwards)
    return tl.load(x + t * strides[2], mask=here, other=0.0).to(tl.float32)


@triton.jit
def _convolved(shift, taps, window, TAPS: tl.constexpr):
    """window: the inputs under the taps, the latest last."""
    y = shift
    for i in tl.static_range(TAPS):
        y += taps[i] * window[i]
    return y


@triton.jit
def conv_forward(
    u, weight, bias, out, of_u, of_y, batch, length, width,
    REVERSE: tl.constexpr, TAPS: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program = direction x sequence x segment x channel block. weight (r, taps, d), its last tap
    the one of the present step; out (r, b, l, d)."""
    blocks = tl.cdiv(width, BLOCK)
    segments = tl.cdiv(length, SEGMENT)
    program = tl.program_id(0)
    d = program % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = d < width
    start = program // blocks % segments * SEGMENT
    row = (program // blocks // segments).to(tl.int64)
    r = row // batch
    backwards = (r == 1) != REVERSE
    u = start_of(u, of_u, r, row % batch) + d
    out = start_of(out, of_y, r, row % batch) + d
    taps = _load_taps(weight, r, d, width, mask, TAPS)
    shift = tl.load(bias + r * width + d, mask=mask, other=0.0)
    window = (tl.zeros([BLOCK], tl.float32),)
    for i in tl.static_range(TAPS - 1, 0, -1):
        window = window + (_load_step(u, of_u, start - i, length, backwards, d, mask),)
    for k in range(start, tl.minimum(start + SEGMENT, length)):
        t = time_of(k, length, backwards)
        x = tl.load(u + t * of_u[2], mask=mask, other=0.0).to(tl.float32)
        window = window[1:] + (x,)
        y = _convolved(shift, taps, window, TAPS)
        tl.store(out + t * of_y[2], y * sigmoid(y), mask=mask)


@triton.jit
def conv_backward(
    grad_out, u, weight, bias, du, dweight, dbias,
    of_u, of_out, of_y, batch, length, width,
    REVERSE: tl.constexpr, TAPS: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program as in `conv_forward`, from the segment's last step to its first, beginning with the
    TAPS - 1 steps behind it, whose gradients reach into it. Writes du (r, b, l, d), and dweight
    (r, b, segments, taps, d) and dbias (r, b, segments, d) for the caller to sum."""
    blocks = tl.cdiv(width, BLOCK)
    segments = tl.cdiv(length, SEGMENT)
    program = tl.program_id(0)
    d = program % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = d < width
    start = program // blocks % segments * SEGMENT
    stop = tl.minimum(start + SEGMENT, length)
    place = (program // blocks).to(tl.int64)  # of direction, sequence and segment
    row = place // segments
    r = row // batch
    backwards = (r == 1) != REVERSE
    u = start_of(u, of_u, r, row % batch) + d
    grad_out = start_of(grad_out, of_out, r, row % batch) + d
    du = start_of(du, of_y, r, row % batch) + d
    taps = _load_taps(weight, r, d, width, mask, TAPS)
    shift = tl.load(bias + r * width + d, mask=mask, other=0.0)
    zero = tl.zeros([BLOCK], tl.float32)
    d_shift = zero
    window, grads, d_taps = (), (), ()
    last = stop + TAPS - 2
    for i in tl.static_range(TAPS):
        k = last + 1 - TAPS + 1 + i
        window = window + (_load_step(u, of_u, k, length, backwards, d, mask),)
        grads, d_taps = grads + (zero,), d_taps + (zero,)
    for back in range(last - start + 1):
        k = last - back
        # The step under the first tap joins.
        x = _load_step(u, of_u, k - TAPS + 1, length, backwards, d, mask)
        window = (x,) + window[: TAPS - 1]
        y = _convolved(shift, taps, window, TAPS)
        g = _load_step(grad_out, of_out, k, length, backwards, d, mask)
        opened = sigmoid(y)
        g *= opened * (1.0 + y * (1.0 - opened))
        grads = (g,) + grads[: TAPS - 1]
        # Those behind the segment belong to the next one's sums.
        g = tl.where(tl.zeros_like(d) + k < stop, g, 0.0)
        d_shift += g
        new_taps = ()
        dx = zero
        for i in tl.static_range(TAPS):
            new_taps = new_taps + (d_taps[i] + g * window[i],)
            dx += taps[i] * grads[TAPS - 1 - i]
        d_taps = new_taps
        t = time_of(k, length, backwards)
        tl.store(du + t * of_y[2], dx, mask=mask & (tl.zeros_like(d) + k < stop))
    tl.store(dbias + place * width + d, d_shift, mask=mask)
    for i in tl.static_range(TAPS):
        tl.store(dweight + (place * TAPS + i) * width + d, d_taps[i], mask=mask)
