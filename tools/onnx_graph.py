"""A network as an ONNX model: any number of spectra, any number of frames."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import onnx_ir as ir
import torch

from bandsplit.bands import BANDS
from bandsplit.net import BandSplitNet
from bandsplit.stft import BINS
from data.utils import DataError
from data.workers import variable
from scan.choice import VARIABLE
from tools.onnx_network import RealNetwork
from tools.onnx_operators import OPSET, translations

INPUT, STATISTICS, OUTPUT = "spectrum", "statistics", "filtered"
SHAPES: dict[str, list[str | int]] = {
    INPUT: ["batch", BINS, "frames", 2],
    STATISTICS: ["batch", BANDS, 2],
    OUTPUT: ["batch", BINS, "frames", 2],
}
# Any above 1, which is taken for a fixed size.
_EXAMPLE: dict[str | int, int] = {"batch": 2, "frames": 40}
_REPORTER = "torch.onnx._internal.exporter._registration"


def onnx_model(network: BandSplitNet) -> bytes:
    """The network between STFT and iSTFT as an ONNX model: spectrum (b, 257, t, 2) to the same.

    It takes what `inputs_of` says. network: on the CPU, in evaluation mode; see
    `tools.onnx_network.RealNetwork`.

    Raises:
        DataError: it has something in it that cannot be exported.
    """
    names = inputs_of(network)
    dims = {name: torch.export.Dim(str(name)) for name in _EXAMPLE}
    dynamic = [{i: dims[n] for i, n in enumerate(SHAPES[x]) if n in dims} for x in names]
    example = [torch.ones([_EXAMPLE.get(n) or int(n) for n in SHAPES[name]]) for name in names]
    try:
        # The backend that has a translation here, and that exists everywhere.
        with _quiet(), variable(VARIABLE, "chunked"), torch.no_grad():
            program = torch.onnx.export(
                RealNetwork(network).eval(),
                tuple(example),
                dynamo=True,
                dynamic_shapes=dynamic,
                custom_translation_table=translations(),
                input_names=names,
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise DataError(f"the network cannot be written as ONNX: {reason}") from error
    assert program is not None
    _forget_origin(program.model)
    for domain in set(program.model.opset_imports) - {""}:
        del program.model.opset_imports[domain]
    content: bytes = program.model_proto.SerializeToString(deterministic=True)
    return content


def inputs_of(network: BandSplitNet) -> list[str]:
    """Return the names of what its ONNX model takes; their shapes are in `SHAPES`."""
    return [INPUT, STATISTICS] if network.split.split_norm else [INPUT]


def _forget_origin(model: ir.Model) -> None:
    """Remove what the exporter notes down of this machine: stack traces with its paths."""
    model.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for graph in _graphs(model.graph):
        graph.metadata_props.clear()
        values = [*graph.inputs, *graph.initializers.values()]
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            values += node.outputs
        for value in values:
            value.metadata_props.clear()


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if isinstance(attribute.value, ir.Graph):
                yield from _graphs(attribute.value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    # That torchvision, which has nothing to do with this, is not there.
    reporter = logging.getLogger(_REPORTER)
    before = reporter.level
    reporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch copies its own description of the arguments in a way that it deprecates.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            # The batch of the second input is that of the first.
            warnings.filterwarnings("ignore", "# The axis name: batch will not be used")
            yield
    finally:
        reporter.setLevel(before)


def packages() -> dict[str, str]:
    """The versions of what makes the file."""
    return {name: version(name) for name in ("torch", "onnx", "onnxscript")}
