"""Sixteen float32 side by side as one value in numba code, and their exp2, softplus and sigmoid.

numba has no vector type and leaves vectorisation to LLVM, which kept the scan's inner loop in
memory and took five times as long. A value of this type is LLVM's <16 x float>: one register with
AVX-512, two with AVX2, four with SSE or NEON.

An array of uint16 is read and written as bfloat16. Offsets count elements and are unchecked. NaN
inputs give NaN outputs: no operation carries LLVM's `nnan` or `ninf`, only `contract`, and
comparisons are written so that NaN fails them and is passed on.
"""

# mypy: disable-error-code="no-untyped-def, call-arg, attr-defined, var-annotated"
from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INT32 = ir.IntType(32)
_INTS = ir.VectorType(_INT32, LANES)
_INT16 = ir.IntType(16)
_INT16S = ir.VectorType(_INT16, LANES)
_FMA = f"llvm.fmuladd.v{LANES}f32"

# Adding it rounds to an integer and leaves that plus 127, the bias of an exponent, in the low bits
# of the sum. Unlike LLVM's conversion to integer this is defined for a NaN.
_ROUNDER = 1.5 * 2.0**23 + 127


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


_vector = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _FLOATS)


def _constant(value: float | int, of: Any = _FLOATS) -> Any:
    return ir.Constant(of, [ir.Constant(of.element, value)] * LANES)


def _call(builder: Any, name: str, result: Any, *values: Any) -> Any:
    """Call LLVM's intrinsic function `name`."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _to_vector(emit: Callable) -> Callable:
    """Make a function for numba code of one that emits LLVM's instructions for a vector."""

    def typed(typing_context, *operands):
        def codegen(context, builder, signature, values):
            return emit(builder, *values)

        return _vector(*operands), codegen

    typed.__signature__ = inspect.signature(emit)  # numba wants to know how many operands
    return intrinsic(typed)


def _operator(symbol: Callable, instruction: str) -> None:
    """Give vectors a Python operator."""

    @_to_vector
    def combine(builder, a, b):
        return getattr(builder, instruction)(a, b, flags=("contract",))

    @overload(symbol)
    def typed(a, b):
        if isinstance(a, _VectorType) and isinstance(b, _VectorType):
            return lambda a, b: combine(a, b)


_operator(operator.add, "fadd")
_operator(operator.iadd, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.imul, "fmul")
_operator(operator.truediv, "fdiv")


@_to_vector
def fma(builder, a, b, c):
    """a * b + c, in one rounding where the CPU can."""
    return _call(builder, _FMA, _FLOATS, a, b, c)


def _polynomial(*coefficients: float) -> Callable:
    """Return a function of a vector: the polynomial with these, lowest order first, by Horner."""
    constants = [_constant(float(np.float32(c))) for c in coefficients]

    @_to_vector
    def evaluate(builder, x):
        value = constants[-1]
        for constant in constants[-2::-1]:
            value = _call(builder, _FMA, _FLOATS, value, x, constant)
        return value

    return evaluate


@_to_vector
def splat(builder, x):
    """A float32 in every lane."""
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, x, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, nothing, _constant(0, _INTS))


@intrinsic
def row_totals(typing_context, array, offset):
    """The sums of sixteen rows of sixteen float32 that begin at `offset`, as one vector.

    Rows are added pairwise, so that a vector holds partial sums of twice as many rows after each
    round: 45 operations instead of eight for each row's own sum.
    """

    def merged(builder, x, y, width):
        # In blocks of `width` lanes: x0+x1 y0+y1 x2+x3 y2+y3 ...
        low, high = [], []
        for start in range(0, LANES, 2 * width):
            for side in (0, LANES):
                low += range(side + start, side + start + width)
                high += range(side + start + width, side + start + 2 * width)
        halves = (builder.shuffle_vector(x, y, ir.Constant(_INTS, lanes)) for lanes in (low, high))
        return builder.fadd(*halves)

    def codegen(context, builder, signature, values):
        pointer = _address(context, builder, array, *values)
        pointer = builder.bitcast(pointer, _FLOATS.as_pointer())
        rows = [
            builder.load(builder.gep(pointer, [ir.Constant(_INT32, i)]), align=4)
            for i in range(LANES)
        ]
        width = LANES // 2
        while width:
            half = len(rows) // 2
            rows = [merged(builder, rows[i], rows[i + half], width) for i in range(half)]
            width //= 2
        return rows[0]

    return _vector(array, types.intp), codegen


@_to_vector
def where_less(builder, a, b, x, y):
    """x where a < b, elsewhere, and where a or b is NaN, y."""
    return builder.select(builder.fcmp_ordered("<", a, b), x, y)


@_to_vector
def nearest(builder, x):
    """x rounded to an integer, for |x| < 2**22."""
    return builder.fsub(builder.fadd(x, _constant(_ROUNDER)), _constant(_ROUNDER))


@_to_vector
def power_of_two(builder, x):
    """2 ** nearest(x), for x in [-127, 128]: 0 at the lower end, inf at the upper."""
    bits = builder.bitcast(builder.fadd(x, _constant(_ROUNDER)), _INTS)
    return builder.bitcast(builder.shl(bits, _constant(23, _INTS)), _FLOATS)


def _address(context, builder, kind, array, offset):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def _reader(result: Any, floats: Any, halves: Any, shift: Any) -> Callable:
    """Make a function that reads from an offset of a one-dimensional array, as LLVM's `floats`;
    shift: 16, for the bits of each bfloat16."""

    def read(typing_context, array, offset):
        def codegen(context, builder, signature, values):
            kind = floats if array.dtype == types.float32 else halves
            pointer = _address(context, builder, array, *values)
            x = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=2)
            if kind is floats:
                return x
            return builder.bitcast(builder.shl(builder.zext(x, shift.type), shift), floats)

        return result(array, types.intp), codegen

    return intrinsic(read)


load = _reader(_vector, _FLOATS, _INT16S, _constant(16, _INTS))
load_scalar = _reader(types.float32, _FLOAT, _INT16, ir.Constant(_INT32, 16))


@intrinsic
def store(typing_context, array, offset, x):
    """Write a vector to `offset` and on: a bfloat16 is the nearest, or even; a NaN stays one."""

    def codegen(context, builder, signature, values):
        pointer = _address(context, builder, array, *values[:2])
        kept = values[2]
        if array.dtype == types.uint16:
            bits = builder.bitcast(kept, _INTS)
            odd = builder.and_(builder.lshr(bits, _constant(16, _INTS)), _constant(1, _INTS))
            rounded = builder.add(bits, builder.add(odd, _constant(0x7FFF, _INTS)))
            high = builder.lshr(rounded, _constant(16, _INTS))
            nan = builder.fcmp_unordered("uno", kept, kept)
            kept = builder.trunc(builder.select(nan, _constant(0x7FC0, _INTS), high), _INT16S)
        builder.store(kept, builder.bitcast(pointer, kept.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), codegen


@intrinsic
def prefetch(typing_context, array, offset):
    """Ask for the cache line at `offset`, which may lie outside the array."""

    def codegen(context, builder, signature, values):
        pointer = _address(context, builder, array, *values)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        flags = [ir.Constant(_INT32, flag) for flag in (0, 3, 1)]  # read, into all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *flags)
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def next_task(typing_context, counter):
    """Take a number from a counter (one int64) that several threads share."""

    def codegen(context, builder, signature, values):
        pointer = _address(context, builder, counter, values[0], ir.Constant(ir.IntType(64), 0))
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen


LOG2_E = np.float32(1.4426950408889634)
ZERO, ONE = np.float32(0), np.float32(1)

# log(1 + e) = e (1 + e Q(e)) on [0, 1], minimax in the relative error (3.4e-8); lowest order first,
# as all coefficients here.
LOG1P = (
    -0.4999964790249543,
    0.33321321160262174,
    -0.24857151571095426,
    0.19153606740106216,
    -0.13753698876442938,
    0.0792033094300065,
    -0.03006503691160201,
    0.0053646354369529005,
)
# 1 - exp(-y) = y (1 - y/2! + y²/3! ...), to a relative error of 4e-7 below the limit.
SERIES = tuple(1 / factorial for factorial in (2, 6, 24, 120, 720))
SERIES_LIMIT = 0.35
# 2**t = 1 + t P(t) on [-0.5, 0.5], minimax in the relative error (9.2e-8); exactly 1 at t = 0, so
# that a step of length zero leaves the state as it is.
_EXP2 = (0.693147, 0.24022242, 0.055507336, 0.009671513, 0.001326472)
_power_series = _polynomial(1, *_EXP2)
_log1p_series = _polynomial(1, *LOG1P)
_sigmoid_series = _polynomial(1, *(c if i % 2 else -c for i, c in enumerate(SERIES)))
_SMALL = np.float32(SERIES_LIMIT)
_LOWEST, _HIGHEST = np.float32(-127), np.float32(128)
FINITE = np.float32(127)  # of an exponent, so that the factor leaves a state of zero at zero


@njit(inline="always")
def exp2(x, highest=_HIGHEST):
    """2**min(x, highest): 0 below -126.5, inf from 127.5 on."""
    x = where_less(x, splat(_LOWEST), splat(_LOWEST), x)
    x = where_less(splat(highest), x, splat(highest), x)
    return power_of_two(x) * _power_series(x - nearest(x))


@njit(inline="always")
def softplus(x):
    """log(1 + exp(x)) without overflow, as max(x, 0) + log(1 + exp(-|x|))."""
    zero = splat(ZERO)
    negative = where_less(zero, x, zero - x, x)
    e = exp2(negative * splat(LOG2_E))
    return fma(e, _log1p_series(e), where_less(x, zero, zero, x))


@njit(inline="always")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return splat(ONE) / (splat(ONE) + exp2(x * splat(-LOG2_E)))


@njit(inline="always")
def sigmoid_from_softplus(y):
    """sigmoid(x) = 1 - exp(-y) for y = softplus(x); for a small y by its series, which keeps it."""
    large = splat(ONE) - exp2(y * splat(-LOG2_E))
    return where_less(y, splat(_SMALL), y * _sigmoid_series(y), large)
