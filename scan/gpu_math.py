"""softplus and sigmoid for the Triton kernels, in float32; a NaN that goes in comes out."""

# mypy: disable-error-code="no-untyped-def, index, assignment"
from __future__ import annotations

import triton
import triton.language as tl

from scan.polynomials import LOG1P, SERIES, SERIES_LIMIT

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
