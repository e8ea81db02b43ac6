"""Sixteen float32 side by side as one value in numba code, for the CPU kernels.

numba has no vector type and leaves vectorisation to LLVM, which kept the scan's inner loop in
memory and took five times as long. A value of this type is LLVM's <16 x float>: one register with
AVX-512, two with AVX2, four with SSE or NEON. It lives in registers as a scalar does.

An array of uint16 is read and written as bfloat16. Offsets count elements and are unchecked.
A NaN that goes in comes out: no operation carries LLVM's `nnan` or `ninf`, only `contract`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INT32 = ir.IntType(32)
_INTS = ir.VectorType(_INT32, LANES)
_INT16 = ir.IntType(16)

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
    """LLVM's intrinsic function `name` of `values`."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _codegen(emit: Callable) -> Callable:
    return lambda context, builder, signature, values: emit(builder, *values)


def _operator(symbol: Callable, instruction: str) -> None:
    """Give vectors a Python operator."""

    @intrinsic
    def combine(typing_context: Any, a: Any, b: Any) -> Any:
        def emit(builder: Any, a: Any, b: Any) -> Any:
            return getattr(builder, instruction)(a, b, flags=("contract",))

        return _vector(_vector, _vector), _codegen(emit)

    @overload(symbol)
    def typed(a, b):  # type: ignore[no-untyped-def]  # numba compares these arguments by their text
        if isinstance(a, _VectorType) and isinstance(b, _VectorType):
            return lambda a, b: combine(a, b)  # type: ignore[call-arg]
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.imul, "fmul"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _instruction)


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, in one rounding where the CPU can."""

    def emit(builder: Any, *values: Any) -> Any:
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _FLOATS, *values)

    return _vector(_vector, _vector, _vector), _codegen(emit)


@intrinsic
def splat(typing_context: Any, x: Any) -> Any:
    """A float32 in every lane."""

    def emit(builder: Any, x: Any) -> Any:
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(nothing, x, ir.Constant(_INT32, 0))
        return builder.shuffle_vector(first, nothing, _constant(0, _INTS))

    return _vector(types.float32), _codegen(emit)


@intrinsic
def row_totals(typing_context: Any, array: Any, offset: Any) -> Any:
    """The sums of sixteen rows of sixteen float32 that begin at `offset`, as one vector.

    Rows are added pairwise, so that a vector holds partial sums of twice as many rows after each
    round: 45 operations instead of eight for each row's own sum.
    """

    def merged(builder: Any, x: Any, y: Any, width: int) -> Any:
        # In blocks of `width` lanes: x0+x1 y0+y1 x2+x3 y2+y3 ...
        low: list[int] = []
        high: list[int] = []
        for start in range(0, LANES, 2 * width):
            for side in (0, LANES):
                low += range(side + start, side + start + width)
                high += range(side + start + width, side + start + 2 * width)
        halves = (builder.shuffle_vector(x, y, ir.Constant(_INTS, lanes)) for lanes in (low, high))
        return builder.fadd(*halves)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
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


@intrinsic
def where_less(typing_context: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """x where a < b, elsewhere, and where a or b is NaN, y."""

    def emit(builder: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", a, b), x, y)

    return _vector(_vector, _vector, _vector, _vector), _codegen(emit)


@intrinsic
def nearest(typing_context: Any, x: Any) -> Any:
    """x rounded to an integer, for |x| < 2**22."""

    def emit(builder: Any, x: Any) -> Any:
        return builder.fsub(builder.fadd(x, _constant(_ROUNDER)), _constant(_ROUNDER))

    return _vector(_vector), _codegen(emit)


@intrinsic
def power_of_two(typing_context: Any, x: Any) -> Any:
    """2 ** nearest(x), for x in [-127, 128]: 0 at the lower end, inf at the upper."""

    def emit(builder: Any, x: Any) -> Any:
        bits = builder.bitcast(builder.fadd(x, _constant(_ROUNDER)), _INTS)
        return builder.bitcast(builder.shl(bits, _constant(23, _INTS)), _FLOATS)

    return _vector(_vector), _codegen(emit)


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [offset])


def _widened(builder: Any, x: Any, integers: Any, floats: Any) -> Any:
    """bfloat16 bits as float32."""
    shift = _constant(16, integers) if integers is _INTS else ir.Constant(integers, 16)
    return builder.bitcast(builder.shl(builder.zext(x, integers), shift), floats)


def _narrowed(builder: Any, x: Any) -> Any:
    """float32 as bfloat16 bits, to nearest even; a NaN stays one."""
    bits = builder.bitcast(x, _INTS)
    odd = builder.and_(builder.lshr(bits, _constant(16, _INTS)), _constant(1, _INTS))
    rounded = builder.add(bits, builder.add(odd, _constant(0x7FFF, _INTS)))
    high = builder.lshr(rounded, _constant(16, _INTS))
    kept = builder.select(builder.fcmp_unordered("uno", x, x), _constant(0x7FC0, _INTS), high)
    return builder.trunc(kept, ir.VectorType(_INT16, LANES))


def _elements(array: Any) -> Any:
    """The LLVM type of an array's elements: float32, or the bits of bfloat16."""
    return {types.float32: _FLOAT, types.uint16: _INT16}[array.dtype]


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """The vector that begins at `offset` of a one-dimensional array."""
    element = _elements(array)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _address(context, builder, array, *values)
        kind = ir.VectorType(element, LANES)
        x = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=2)
        return x if element is _FLOAT else _widened(builder, x, _INTS, _FLOATS)

    return _vector(array, types.intp), codegen


@intrinsic
def load_scalar(typing_context: Any, array: Any, offset: Any) -> Any:
    """One element, as float32."""
    element = _elements(array)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x = builder.load(_address(context, builder, array, *values))
        return x if element is _FLOAT else _widened(builder, x, _INT32, _FLOAT)

    return types.float32(array, types.intp), codegen


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, x: Any) -> Any:
    """Write a vector to `offset` and on."""
    element = _elements(array)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _address(context, builder, array, *values[:2])
        kept = values[2] if element is _FLOAT else _narrowed(builder, values[2])
        builder.store(kept, builder.bitcast(pointer, kept.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), codegen


@intrinsic
def prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    """Ask for the line at `offset`, which may lie outside the array, before it is needed."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _address(context, builder, array, *values)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        # For reading, to stay in all caches, of data.
        _call(
            builder, "llvm.prefetch.p0", ir.VoidType(), pointer,
            *(ir.Constant(_INT32, flag) for flag in (0, 3, 1)),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def next_task(typing_context: Any, counter: Any) -> Any:
    """Take a number from a counter (one int64) that several threads share."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _address(context, builder, counter, values[0], ir.Constant(ir.IntType(64), 0))
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen
