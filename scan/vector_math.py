"""exp2, softplus and sigmoid of vectors, for the CPU kernels.

Plain arithmetic: a polynomial, and an exponent built as an integer. A NaN that goes in comes out:
comparisons are written so that NaN fails them and is passed on.
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from scan.polynomials import LOG1P, SERIES, SERIES_LIMIT
from scan.vectors import fma, nearest, power_of_two, splat, where_less

LOG2_E = np.float32(1.4426950408889634)
ZERO = np.float32(0)
ONE = np.float32(1)

# 2**t = 1 + t P(t) on [-0.5, 0.5], minimax in the relative error (9.2e-8); exactly 1 at t = 0, so
# that a step of length zero leaves the state as it is.
_P1, _P2, _P3, _P4, _P5 = (
    np.float32(c)
    for c in (
        0.6931469775831112,
        0.24022242074513722,
        0.055507337663786994,
        0.009671513137817788,
        0.0013264720232070727,
    )
)
_Q1, _Q2, _Q3, _Q4, _Q5, _Q6, _Q7, _Q8 = (np.float32(c) for c in LOG1P)
_H2, _H3, _H4, _H5, _H6 = (np.float32(c) for c in SERIES)
_SMALL = np.float32(SERIES_LIMIT)
_LOWEST = np.float32(-127)
_HIGHEST = np.float32(128)


@njit(inline="always")
def exp2(x):
    """2**x: 0 below -126.5, inf from 127.5 on."""
    return _power(x, _HIGHEST)


@njit(inline="always")
def finite_exp2(x):
    """2**min(x, 127): a factor that leaves a state of zero at zero."""
    return _power(x, _HIGHEST - ONE)


@njit(inline="always")
def _power(x, highest):
    x = where_less(x, splat(_LOWEST), splat(_LOWEST), x)
    x = where_less(splat(highest), x, splat(highest), x)
    t = x - nearest(x)
    p = fma(splat(_P5), t, splat(_P4))
    p = fma(p, t, splat(_P3))
    p = fma(p, t, splat(_P2))
    p = fma(p, t, splat(_P1))
    p = fma(p, t, splat(ONE))
    return power_of_two(x) * p


@njit(inline="always")
def softplus(x):
    """log(1 + exp(x)) without overflow, as max(x, 0) + log(1 + exp(-|x|))."""
    zero = splat(ZERO)
    negative = where_less(zero, x, zero - x, x)
    e = exp2(negative * splat(LOG2_E))
    q = fma(splat(_Q8), e, splat(_Q7))
    q = fma(q, e, splat(_Q6))
    q = fma(q, e, splat(_Q5))
    q = fma(q, e, splat(_Q4))
    q = fma(q, e, splat(_Q3))
    q = fma(q, e, splat(_Q2))
    q = fma(q, e, splat(_Q1))
    q = fma(q, e, splat(ONE))
    return fma(e, q, where_less(x, zero, zero, x))


@njit(inline="always")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return splat(ONE) / (splat(ONE) + exp2(x * splat(-LOG2_E)))


@njit(inline="always")
def sigmoid_from_softplus(y):
    """sigmoid(x) = 1 - exp(-y) for y = softplus(x); for a small y by its series, which keeps it."""
    one = splat(ONE)
    series = fma(splat(-_H6), y, splat(_H5))
    series = one - y * (splat(_H2) - y * (splat(_H3) - y * (splat(_H4) - y * series)))
    return where_less(y, splat(_SMALL), y * series, one - exp2(y * splat(-LOG2_E)))
