"""Export a trained network as a model folder, with an ONNX model.

    bsbimamba export MODEL -o DIR [--about TEXT] [--no-onnx]

It writes model.safetensors, config.json, a card and model.onnx into DIR, in place of a model that
is there, and nothing if onnxruntime and PyTorch compute different results (docs/export.md).
Status 0: done; 1: the disk failed; 2: the command line, MODEL, DIR or the ONNX model is wrong.
"""

import argparse
import copy
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bsbimamba.data.workers import stop_by_signals
from bsbimamba.inference.trained import WEIGHTS, find, write_model
from bsbimamba.inference.windows import Windows, hops
from bsbimamba.network.bands import BANDS, band_statistics
from bsbimamba.network.decoder import TAPS, apply_filter
from bsbimamba.network.net import RMS_FLOOR, BandSplitNet, loudness
from bsbimamba.network.stft import BINS, COMPRESSION, HOP, compressed, stft
from bsbimamba.scan import convolution  # noqa: F401  (which `onnx_model` translates)
from bsbimamba.scan.dispatch import VARIABLE
from bsbimamba.scan.interface import ways
from bsbimamba.utils import DataError, carry_out, say

try:
    import onnx
    import onnx_ir as ir
    import onnxruntime
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript import opset18

    op: Any = opset18  # its types ask for every constant to be declared
    MISSING = None
except ImportError as error:  # weights can be exported without these packages
    MISSING = error.name

OPSET = 18
INPUT, STATISTICS, OUTPUT = "spectrum", "statistics", "filtered"
SHAPES = {INPUT: ["batch", BINS, "frames", 2], STATISTICS: ["batch", BANDS, 2]}
SHAPES[OUTPUT] = SHAPES[INPUT]
TOLERANCE = 1e-4  # of the spectrum's root mean square
_FRAMES = (1, 2, 3, 31, 126)  # of the short spectra that are compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser("bsbimamba export", description="Export a trained network.")
    parser.add_argument("model", help="a run folder, a checkpoint, a model folder, or a model")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR")
    about = "the data that it was trained on, and their licences, for the card"
    parser.add_argument("--about", default="", metavar="TEXT", help=about)
    parser.add_argument("--no-onnx", action="store_true", help="no ONNX model, only the weights")
    return carry_out("export", partial(export, parser.parse_args(arguments)))


def export(options: argparse.Namespace) -> int:
    """Write the model folder. Raise DataError for a wrong MODEL, DIR or ONNX model."""
    target: Path = options.out
    if MISSING and not options.no_onnx:
        raise DataError(f"ONNX needs {MISSING}: pip install 'bs-bimamba[export]', or --no-onnx")
    if target.exists() and any(target.iterdir()) and not (target / WEIGHTS).exists():
        raise DataError(f"{target} holds other files than a model's: use another -o")
    trained = find(options.model)
    if options.about:
        trained = replace(trained, about=options.about)
    translated = None
    if not options.no_onnx:
        say("exporting to ONNX, which takes a minute")
        content = onnx_model(trained.network)
        translated = content, checked(trained.network, content)
    write_model(target, trained, translated)
    print(f"{target} is written")
    return 0


def onnx_model(network: BandSplitNet) -> bytes:
    """Return what a network on the CPU has between STFT and iSTFT, as an ONNX model for any batch
    and any length."""
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    dynamic = [{0: batch, 2: frames}, {0: batch}]
    # No size is 1: the exporter would fix such an axis.
    example = (torch.ones(2, BINS, 40, 2), torch.ones(2, BANDS, 2))
    own = torch.ops.bsbimamba
    table: dict[Any, Any] = {own.scan_chunked.default: _scan, own.conv_silu.default: _conv}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    # "chunked" runs on every machine and is what `table` translates. PyTorch warns of its own code.
    with (
        warnings.catch_warnings(action="ignore"),
        patch.dict(os.environ, {VARIABLE: "chunked"}),
        torch.no_grad(),
    ):
        program: Any = torch.onnx.export(
            RealNetwork(network).eval(), example, input_names=[INPUT, STATISTICS],
            output_names=[OUTPUT], dynamic_shapes=dynamic, custom_translation_table=table,
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    ClearMetadataAndDocStringPass()(program.model)  # stack traces with paths of this machine
    return program.model_proto.SerializeToString(deterministic=True)


def checked(network: BandSplitNet, content: bytes) -> dict[str, Any]:
    """Check the network's ONNX model; return its entries for `config.json`.

    onnxruntime and PyTorch (CPU, float32) get spectra of noise, silence, and noise that swells by
    80 dB: short ones together, then a whole window of the last.

    Raises DataError if a real or imaginary part differs by more than `TOLERANCE`.
    """
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences, generator = [], torch.Generator().manual_seed(20230604)
    for frames in (*_FRAMES, hops(Windows().length) // HOP + 1):
        noise = torch.randn(frames * HOP - 1, generator=generator)
        swelling = noise * torch.logspace(-3, 1, len(noise))
        both = [noise, 0 * noise] * (frames in _FRAMES)  # a whole window takes gigabytes
        signals = torch.stack([*both, swelling])
        spectra = stft(signals / loudness(signals))
        found = torch.from_numpy(session.run([OUTPUT], feed(spectra))[0])
        with torch.no_grad():
            taps = network.decoder(network.layers(network.split(spectra)))
        expected = torch.view_as_real(apply_filter(taps, spectra))
        scale = expected.double().square().mean((1, 2, 3)).sqrt().clamp_min(RMS_FLOOR)
        differences.append(((found - expected).abs().amax((1, 2, 3)) / scale).max())
    largest = float(torch.stack(differences).max())
    message = f"onnxruntime and PyTorch differ by {largest:.1e} of the root mean square"
    if not largest <= TOLERANCE:  # true of NaN, too
        raise DataError(f"the ONNX model is wrong: {message}, {TOLERANCE:g} is allowed")
    say(message)
    return {
        "opset": OPSET,
        "inputs": {name: SHAPES[name] for name in (INPUT, STATISTICS)},
        "outputs": {OUTPUT: SHAPES[OUTPUT]},
        "largest_difference": float(f"{largest:.1e}"),
        "made_by": {x: version(x) for x in ("torch", "onnx", "onnxscript", "onnxruntime")},
    }


def feed(spectra: Tensor) -> dict[str, NDArray]:
    """Return the inputs of an ONNX model for the spectra (b, f, t) of whole recordings."""
    statistics = band_statistics(torch.view_as_real(compressed(spectra)))
    return {INPUT: torch.view_as_real(spectra).numpy(), STATISTICS: statistics.numpy()}


class RealNetwork(nn.Module):
    """A network's modules between STFT and iSTFT, in real numbers, as ONNX has no complex ones.

    forward(spectrum (b, f, t, 2), statistics (b, 31, 2)) returns the filtered spectrum. Spectrum
    and `band_statistics` are of a recording that was divided by its loudness.
    """

    def __init__(self, network: BandSplitNet) -> None:
        super().__init__()
        self.network: Any = copy.deepcopy(network)
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.LSTM):
                    setattr(module, name, OnnxLSTM(child))

    def forward(self, spectrum: Tensor, statistics: Tensor) -> Tensor:
        network = self.network
        # `compressed`: (|X|² + 1e-9)^e X, but with a 1 in place of the 1e-9. onnxscript's optimiser
        # takes that for 0 and removes it, and silence would be 0 times infinity.
        exponent = (COMPRESSION - 1) / 2
        power = (1e9 * spectrum.square().sum(-1, keepdim=True) + 1) ** exponent
        features = network.split.of_parts(spectrum * power * 1e9**-exponent, statistics)
        taps = network.decoder.parts(network.layers(features))  # (b, f, t, 3, 2)
        # `apply_filter` in real numbers.
        padded, out = F.pad(spectrum, (0, 0, 1, 1)), spectrum
        for i in range(TAPS):
            x, tap = padded[:, :, i : i + spectrum.shape[2]], taps[:, :, :, i]
            rotated = torch.stack([-x[..., 1], x[..., 0]], -1)
            out = out + tap[..., :1] * x + tap[..., 1:] * rotated
        return out


class OnnxLSTM(nn.Module):
    """An LSTM of one layer as ONNX's operator, which `torch.export` unrolls for one length."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden_size, self.bidirectional = lstm.hidden_size, lstm.bidirectional
        suffixes = ("", "_reverse") if lstm.bidirectional else ("",)

        def stacked(name: str) -> Tensor:
            # Rows of input, forget, cell and output gates, as PyTorch has them, in ONNX's order.
            values = [getattr(lstm, f"{name}_l0{suffix}").detach().chunk(4) for suffix in suffixes]
            return torch.stack([torch.cat([i, o, f, c]) for i, f, c, o in values])

        self.W = nn.Buffer(stacked("weight_ih"))
        self.R = nn.Buffer(stacked("weight_hh"))
        self.B = nn.Buffer(torch.cat([stacked("bias_ih"), stacked("bias_hh")], 1))

    def forward(self, x: Tensor, start: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        """Map (l, b, c) to (l, b, ways · h); None stands for the states that `nn.LSTM` returns.

        start: zeros, which ONNX's operator takes without being given them.
        """
        shape = [x.shape[0], len(self.W), x.shape[1], self.hidden_size]
        ways = "bidirectional" if self.bidirectional else "forward"
        y = torch.onnx.ops.symbolic(
            "LSTM", [x, self.W, self.R, self.B],
            {"hidden_size": self.hidden_size, "direction": ways},
            dtype=x.dtype, shape=shape, version=OPSET,
        )  # fmt: skip
        return y.transpose(1, 2).flatten(2), None


# In both translations: r directions, b sequences, l scanned length, d inner width, n state.
def _conv(u: Any, weight: Any, bias: Any, reverse: bool) -> Any:
    """Translate `scan.convolution.conv_silu`: u (r, b, l, d), weight (r, d, taps), bias (r, d)."""
    outs, taps = [], weight.shape[2]
    for way, backwards in enumerate(ways(weight.shape[0], reverse)):
        kernel = op.Unsqueeze(_of(weight, way), [1])
        if backwards:
            kernel = op.Slice(kernel, [-1], [-taps - 1], [2], [-1])
        x = op.Transpose(_of(u, way), perm=[0, 2, 1])
        pads = [0, taps - 1] if backwards else [taps - 1, 0]
        y = op.Conv(x, kernel, _of(bias, way), group=weight.shape[1], pads=pads)
        outs.append(op.Unsqueeze(op.Transpose(y, perm=[0, 2, 1]), [0]))
    y = op.Concat(*outs, axis=0)
    return op.Mul(y, op.Sigmoid(y))


def _scan(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any, initial_state: Any,
    delta_softplus: bool, reverse: bool, chunk_size: int, want_last: bool,
) -> Any:  # fmt: skip
    """Translate the scan's operator (`scan.operators`) as Mamba's mixer calls it."""
    # Step by step, as the band path has them in memory already: (r, l, b, ·).
    u, delta, B, C, gate = (op.Transpose(x, perm=[0, 2, 1, 3]) for x in (u, delta, B, C, z))
    delta = op.Softplus(op.Add(delta, op.Unsqueeze(delta_bias, [1, 2])))
    driven, outs = op.Mul(delta, u), []
    for way, backwards in enumerate(ways(A.shape[0], reverse)):
        sequences = [_of(x, way) for x in (delta, driven, B, C)]
        A_way = op.Transpose(_of(A, way), perm=[1, 0])
        outs.append(op.Unsqueeze(_recurrence(sequences, A_way, A.shape[1:], backwards), [0]))
    y = op.Add(op.Concat(*outs, axis=0), op.Mul(u, op.Unsqueeze(D, [1, 2])))
    y = op.Mul(y, op.Mul(gate, op.Sigmoid(gate)))
    nothing = op.Constant(value_floats=[0.0])  # for the last state, and for a backward pass
    return op.Transpose(y, perm=[0, 2, 1, 3]), nothing, nothing


def _of(x: Any, way: int) -> Any:
    """Return one direction of x (r, ...)."""
    return op.Gather(x, op.Constant(value_int=way), axis=0)


def _recurrence(sequences: Sequence[Any], A: Any, sizes: tuple[int, int], backwards: bool) -> Any:
    """Return y (l, b, d) of one direction, by ONNX's Scan.

    sequences: delta and delta u (l, b, d), B and C (l, b, n). A: (n, d). sizes: d and n.
    """
    d, n = sizes
    rows = [(1, d), (1, d), (n, 1), (1, n)]  # of delta, delta u, B and C in a step
    inputs = [
        op.Reshape(x, op.Constant(value_ints=[0, 0, *row]))
        for x, row in zip(sequences, rows, strict=True)
    ]
    count = op.Shape(sequences[0], start=1, end=2)
    start = op.ConstantOfShape(op.Concat(count, op.Constant(value_ints=[n, d]), axis=0))
    # A step: h = exp(delta A) h + B delta u and y = C h, (b, n, d) and (b, 1, d).
    h, state, y = _value("h", n, d), _value("state", n, d), _value("y", 1, d)
    names = ("delta", "driven", "B", "C")
    step = [_value(name, *row) for name, row in zip(names, rows, strict=True)]
    nodes: list[Any] = []

    def node(kind: str, *given: Any, out: Any = None) -> Any:
        nodes.append(ir.node(kind, given, outputs=out and [out]))
        return nodes[-1].outputs[0]

    decayed = node("Mul", node("Exp", node("Mul", step[0], A)), h)
    node("Add", decayed, node("Mul", step[2], step[1]), out=state)
    node("MatMul", step[3], state, out=y)  # half the time of a product and a sum
    body = ir.Graph([h, *step], [state, y], nodes=nodes, name="step")
    way = int(backwards)
    directions = {"scan_input_directions": [way] * 4, "scan_output_directions": [way]}
    scan = op.Scan(start, *inputs, body=body, num_scan_inputs=4, **directions).producer()
    scan.resize_outputs(2)  # onnxscript gives it one, the last state
    return op.Reshape(scan.outputs[1], [0, 0, d])


def _value(name: str, *shape: int) -> Any:
    """Return a tensor (b, *shape) of the body of a Scan."""
    return ir.Value(
        name=name, shape=ir.Shape([None, *shape]), type=ir.TensorType(ir.DataType.FLOAT)
    )


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
