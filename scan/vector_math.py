"""exp2, softplus and sigmoid that LLVM turns into vector instructions, for the numba kernels.

`math.exp` stays a scalar call inside a numba loop and costs ten times the rest of a scan step.
These are plain arithmetic instead: a polynomial, and an exponent built as an integer. All take and
return float32. A NaN that goes in comes out: comparisons are written so that NaN fails them and is
passed on, and FASTMATH leaves out `nnan` and `ninf`, which would let LLVM assume there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

FASTMATH = {"contract", "reassoc", "arcp", "nsz"}

_F = np.float32
_LOG2_E = _F(1.4426950408889634)

# 2**t = 1 + t P(t) on [-0.5, 0.5], minimax in the relative error (9.2e-8); exactly 1 at t = 0, so
# that a step of length zero leaves the state as it is.
_P1, _P2, _P3, _P4, _P5 = (
    _F(c)
    for c in (
        0.6931469775831112,
        0.24022242074513722,
        0.055507337663786994,
        0.009671513137817788,
        0.0013264720232070727,
    )
)
# log(1 + e) = e (1 + e Q(e)) on [0, 1], minimax in the relative error (3.4e-8).
_Q1, _Q2, _Q3, _Q4, _Q5, _Q6, _Q7, _Q8 = (
    _F(c)
    for c in (
        -0.4999964790249543,
        0.33321321160262174,
        -0.24857151571095426,
        0.19153606740106216,
        -0.13753698876442938,
        0.0792033094300065,
        -0.03006503691160201,
        0.0053646354369529005,
    )
)

# 1 - exp(-y) = y (1 - y/2! + y²/3! ...), to a relative error of 4e-7 below 0.35.
_H2, _H3, _H4, _H5, _H6 = (_F(1 / c) for c in (2, 6, 24, 120, 720))

# Adding 1.5 * 2**23 leaves round(x) in the low bits of the sum. Unlike a conversion to integer,
# which LLVM leaves undefined for a NaN, this is defined for every input.
_ROUNDER = _F(12582912.0)


@intrinsic
def _bits(typing_context: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _from_bits(typing_context: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _nearest(typing_context: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rint = builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()])
        return builder.call(rint, args)

    return types.float32(types.float32), codegen


@intrinsic
def wide_vectors(typing_context: Any) -> Any:
    """Let LLVM use 512-bit vectors in the function that calls this, where the CPU has them.

    By default it keeps to 256 on most CPUs with AVX-512, for fear of lower clocks; on these
    kernels the wider ones took 0.55 of the time. llvmlite knows no attribute with a value, so it
    is put into the set by hand.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@njit(inline="always", fastmath=FASTMATH)
def exp2(x):  # type: ignore[no-untyped-def]
    """2**x: 0 below -127 (no denormals), inf from 127.5 on."""
    x = _F(-127.0) if x < _F(-127.0) else x
    x = _F(128.0) if x > _F(128.0) else x
    t = x - _nearest(x)  # type: ignore[call-arg]
    power = _from_bits((_bits(x + _ROUNDER) + np.int32(127)) << np.int32(23))
    return power * (_F(1) + t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5)))))


@njit(inline="always", fastmath=FASTMATH)
def softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) without overflow, as max(x, 0) + log(1 + exp(-|x|))."""
    e = exp2(-abs(x) * _LOG2_E)
    q = _Q1 + e * (_Q2 + e * (_Q3 + e * (_Q4 + e * (_Q5 + e * (_Q6 + e * (_Q7 + e * _Q8))))))
    return (_F(0) if x < _F(0) else x) + e * (_F(1) + e * q)


@njit(inline="always", fastmath=FASTMATH)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x))."""
    return _F(1) / (_F(1) + exp2(-x * _LOG2_E))


@njit(inline="always", fastmath=FASTMATH)
def sigmoid_from_softplus(y):  # type: ignore[no-untyped-def]
    """sigmoid(x) = 1 - exp(-y) for y = softplus(x); for a small y by its series, which keeps it."""
    small = y * (_F(1) - y * (_H2 - y * (_H3 - y * (_H4 - y * (_H5 - y * _H6)))))
    return small if y < _F(0.35) else _F(1) - exp2(-y * _LOG2_E)
