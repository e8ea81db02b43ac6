"""The project's own operators in those of ONNX: the selective scan and the short convolution.

Shapes as in `scan`: `r` directions, `b` sequences, `l` scanned length, `d` inner width, `n` state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18

from scan.interface import ways

OPSET = 18
op: Any = opset18  # whose types want to be told every constant's

# Sequences that are scanned side by side: the bands, so that the time path needs no filling up. The
# states of the band path's frames, 24 KB each, would not stay in the cache all together.
_BLOCK = 31


def translations() -> dict[Callable, Callable]:
    """By operator, what makes its nodes: for `torch.onnx.export(custom_translation_table=...)`."""
    own = torch.ops.bsbimamba
    return {own.scan_chunked.default: _scan, own.conv_silu.default: _conv_silu}


def _conv_silu(u: Any, weight: Any, bias: Any, reverse: bool, backend: str) -> Any:
    """`scan.convolution.conv_silu`: u (r, b, l, d), weight (r, d, taps), bias (r, d)."""
    taps = weight.shape[2]
    outs = []
    for way, backwards in enumerate(ways(weight.shape[0], reverse)):
        kernel = op.Unsqueeze(_of(weight, way), [1])
        if backwards:
            kernel = op.Slice(kernel, [-1], [-taps - 1], [2], [-1])
        x = op.Transpose(_of(u, way), perm=[0, 2, 1])
        pads = [0, taps - 1] if backwards else [taps - 1, 0]
        y = op.Conv(x, kernel, _of(bias, way), group=weight.shape[1], pads=pads)
        outs.append(op.Unsqueeze(op.Transpose(y, perm=[0, 2, 1]), [0]))
    y = op.Concat(*outs, axis=0) if len(outs) > 1 else outs[0]
    return op.Mul(y, op.Sigmoid(y))


def _scan(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    delta_bias: Any,
    initial_state: Any,
    delta_softplus: bool,
    reverse: bool,
    chunk_size: int,
    want_last: bool,
) -> Any:
    """The operators of `scan.operators`, as Mamba's mixer calls them."""
    if any(x is None for x in (D, z, delta_bias)) or not delta_softplus:
        raise NotImplementedError("a scan without D, z, the bias of delta or its softplus")
    if initial_state is not None or want_last:
        raise NotImplementedError("a scan in pieces")
    # Step by step, as the band path has them in memory already: (r, l, b, ·).
    u, delta, B, C, gate = (op.Transpose(x, perm=[0, 2, 1, 3]) for x in (u, delta, B, C, z))
    delta = op.Softplus(op.Add(delta, op.Unsqueeze(delta_bias, [1, 2])))
    driven = op.Mul(delta, u)
    outs = []
    for way, backwards in enumerate(ways(A.shape[0], reverse)):
        sequences = [_of(x, way) for x in (delta, driven, B, C)]
        A_way = op.Transpose(_of(A, way), perm=[1, 0])
        outs.append(op.Unsqueeze(_recurrence(sequences, A_way, A.shape[1:], backwards), [0]))
    y = op.Concat(*outs, axis=0) if len(outs) > 1 else outs[0]
    y = op.Add(y, op.Mul(u, op.Unsqueeze(D, [1, 2])))
    y = op.Mul(y, op.Mul(gate, op.Sigmoid(gate)))
    # In the places of the last state and of what a backward pass would need.
    nothing = op.Constant(value_floats=[0.0])
    return op.Transpose(y, perm=[0, 2, 1, 3]), nothing, nothing


def _of(x: Any, way: int) -> Any:
    """One direction of x (r, ...)."""
    return op.Gather(x, op.Constant(value_int=way), axis=0)


def _recurrence(sequences: Sequence[Any], A: Any, sizes: tuple[int, int], backwards: bool) -> Any:
    """y (l, b, d) of one direction: a Scan over blocks of sequences, in it a Scan over steps.

    sequences: delta and delta u (l, b, d), B and C (l, b, n). A: (n, d). sizes: d and n.
    """
    d, n = sizes
    delta, driven, B, C = sequences
    count = op.Shape(delta, start=1, end=2)
    missing = op.Mod(op.Neg(count), op.Constant(value_ints=[_BLOCK]))
    before, after = op.Constant(value_ints=[0] * 4), op.Constant(value_ints=[0])
    pads = op.Concat(before, missing, after, axis=0)

    def blocks(x: Any, *row: int) -> Any:
        """(l, b, ·) to (l, blocks, block, *row)."""
        return op.Reshape(op.Pad(x, pads), op.Constant(value_ints=[0, -1, _BLOCK, *row]))

    rows = [blocks(delta, 1, d), blocks(driven, 1, d), blocks(B, n, 1), blocks(C, 1, n)]
    start = op.ConstantOfShape(op.Constant(value_ints=[_BLOCK, n, d]))
    y = op.Scan(
        *rows,
        body=_block_body(A, start, sizes, backwards),
        num_scan_inputs=4,
        scan_input_axes=[1] * 4,
        scan_output_axes=[1],
    )
    y = op.Reshape(y, op.Constant(value_ints=[0, -1, d]))
    return op.Slice(y, [0], count, [1])


def _block_body(A: Any, start: Any, sizes: tuple[int, int], backwards: bool) -> ir.Graph:
    """All steps of a block of sequences."""
    d, n = sizes
    inputs = [
        _value(name, None, _BLOCK, *row)
        for name, row in (("delta", (1, d)), ("driven", (1, d)), ("B", (n, 1)), ("C", (1, n)))
    ]
    attributes: dict[str, Any] = {
        "body": _step_body(A, sizes),
        "num_scan_inputs": 4,
        "scan_input_directions": [int(backwards)] * 4,
        "scan_output_directions": [int(backwards)],
    }
    outputs = [_value("last", _BLOCK, n, d), _value("y", None, _BLOCK, 1, d)]
    scan = ir.node("Scan", [start, *inputs], attributes, outputs=outputs)
    return ir.Graph(inputs, outputs[1:], nodes=[scan], name="block")


def _step_body(A: Any, sizes: tuple[int, int]) -> ir.Graph:
    """h = exp(delta A) h + B delta u and y = C h: (block, n, d) and (block, 1, d)."""
    d, n = sizes
    h, state = _value("h", _BLOCK, n, d), _value("state", _BLOCK, n, d)
    delta, driven, y = (_value(name, _BLOCK, 1, d) for name in ("delta", "driven", "y"))
    B, C = _value("B", _BLOCK, n, 1), _value("C", _BLOCK, 1, n)
    exponent = ir.node("Mul", [delta, A])
    decay = ir.node("Exp", exponent.outputs)
    decayed = ir.node("Mul", [*decay.outputs, h])
    brought = ir.node("Mul", [B, driven])
    summed = ir.node("Add", [*decayed.outputs, *brought.outputs], outputs=[state])
    # A product of matrices takes half the time of multiplying and adding up.
    read = ir.node("MatMul", [C, state], outputs=[y])
    nodes = [exponent, decay, decayed, brought, summed, read]
    return ir.Graph([h, delta, driven, B, C], [state, y], nodes=nodes, name="step")


def _value(name: str, *shape: int | None) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
