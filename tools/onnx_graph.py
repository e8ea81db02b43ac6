"""A network as an ONNX model: any number of spectra, any number of frames."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import onnx_ir as ir
import torch

from bandsplit.net import BandSplitNet
from bandsplit.stft import BINS
from data.environment import variable
from data.errors import DataError
from scan.choice import VARIABLE
from tools.onnx_network import RealNetwork
from tools.onnx_operators import OPSET, translations

INPUT, OUTPUT = "spectrum", "filtered"
_EXAMPLE = (2, BINS, 40, 2)  # any with b and t above 1, which are taken for fixed sizes
_REPORTER = "torch.onnx._internal.exporter._registration"


def onnx_model(network: BandSplitNet) -> bytes:
    """The network between STFT and iSTFT as an ONNX model: spectrum (b, 257, t, 2) to the same.

    network: on the CPU, in evaluation mode; see `tools.onnx_network.RealNetwork`.

    Raises:
        DataError: it has something in it that cannot be exported.
    """
    dimensions = {0: torch.export.Dim("batch"), 2: torch.export.Dim("frames")}
    try:
        # The backend that has a translation here, and that exists everywhere.
        with _quiet(), variable(VARIABLE, "chunked"), torch.no_grad():
            program = torch.onnx.export(
                RealNetwork(network).eval(),
                (torch.zeros(_EXAMPLE),),
                dynamo=True,
                dynamic_shapes=(dimensions,),
                custom_translation_table=translations(),
                input_names=[INPUT],
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
            yield
    finally:
        reporter.setLevel(before)


def packages() -> dict[str, str]:
    """The versions of what makes the file."""
    return {name: version(name) for name in ("torch", "onnx", "onnxscript")}
