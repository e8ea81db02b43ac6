"""An ONNX model against the network that it was made of, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandsplit.bands import band_statistics
from bandsplit.decoder import apply_filter
from bandsplit.net import RMS_FLOOR, BandSplitNet, loudness
from bandsplit.stft import HOP, compressed, stft
from data.utils import DataError
from tools.onnx_graph import INPUT, OUTPUT, STATISTICS, inputs_of

TOLERANCE = 1e-4
_SHORT = (1, 2, 3, 31, 126)  # frames
_SEED = 20230604


def check_model(content: bytes) -> None:
    """Look a model over.

    Raises:
        DataError: it is not valid, or needs more than ONNX's own operators.
    """
    model = onnx.load_from_string(content)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise DataError(f"what was exported is not valid ONNX: {error}") from None
    strangers = _domains(model.graph) | {x.domain for x in model.opset_import}
    strangers -= {"", "ai.onnx"}
    if strangers or model.functions:
        raise DataError(f"the ONNX model needs operators that are not ONNX's own: {strangers}")


def _domains(graph: Any) -> set[str]:
    """Of the operators in a graph and in the bodies in it."""
    found = {node.domain for node in graph.node}
    bodies = (x.g for node in graph.node for x in node.attribute if x.HasField("g"))
    return found.union(*map(_domains, bodies))


def compare(network: BandSplitNet, content: bytes, frames: int) -> dict[str, Any]:
    """Run a model by onnxruntime (CPU) and its network by PyTorch (CPU, float32) on the same.

    The spectra are those of noise, of silence, of noise that swells by 80 dB, and of two at a time,
    1 to 126 and `frames` frames long, each divided by its loudness. What is compared: the largest
    difference in any real or imaginary part, over the root mean square of all of them in what
    PyTorch gives (at least 1e-5, the loudness of silence).

    Returns:
        What was found, as it goes into a description of the model.

    Raises:
        DataError: it is more than `TOLERANCE` somewhere.
    """
    session = session_of(content)
    largest = 0.0
    for name, spectrum in _spectra((*_SHORT, frames)):
        found = session.run([OUTPUT], feed(network, spectrum))[0]
        expected = torch.view_as_real(_filtered(network, spectrum)).numpy()
        difference = _difference(found, expected)
        if not difference <= TOLERANCE:
            raise DataError(
                f"the ONNX model does not do what the network does: on {name} of "
                f"{spectrum.shape[-1]} frames they differ by {difference:.1e} of its root mean "
                f"square, and {TOLERANCE:g} is allowed. Nothing was kept."
            )
        largest = max(largest, difference)
    return {
        "tolerance": TOLERANCE,
        "largest_difference": float(f"{largest:.1e}"),
        "frames": [*_SHORT, frames],
        "onnxruntime": version("onnxruntime"),
        "torch": torch.__version__,
    }


def feed(network: BandSplitNet, spectrum: Tensor) -> dict[str, NDArray]:
    """Return what the network's ONNX model takes of the spectra (b, f, t) of whole recordings."""
    parts = torch.view_as_real(spectrum)
    of_recordings = band_statistics(torch.view_as_real(compressed(spectrum)))
    given = {INPUT: parts.numpy(), STATISTICS: of_recordings.numpy()}
    return {name: given[name] for name in inputs_of(network)}


def session_of(content: bytes, threads: int = 0) -> Any:
    """A model, ready to run on the CPU. threads: as many as there are cores, if 0."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _difference(found: NDArray, expected: NDArray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = max(float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))), RMS_FLOOR)
    return float(np.abs(found - expected).max()) / scale


@torch.no_grad()
def _filtered(network: BandSplitNet, spectrum: Tensor) -> Tensor:
    return apply_filter(network.decoder(network.layers(network.split(spectrum))), spectrum)


def _spectra(lengths: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """Spectra (b, f, t) to compare on, by what they are of."""
    generator = torch.Generator().manual_seed(_SEED)
    for frames in lengths:
        samples = frames * HOP - 1
        noise = torch.randn(2, samples, generator=generator)
        swelling = noise[:1] * torch.logspace(-3, 1, samples)
        signals = {"noise": noise[:1], "silence": 0 * noise[:1], "noise that swells": swelling}
        if frames == _SHORT[-1]:
            signals["two at a time"] = noise
        for name, signal in signals.items():
            spectrum = stft(signal / loudness(signal))
            assert spectrum.shape[-1] == frames
            yield name, spectrum
