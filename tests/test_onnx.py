"""Networks as ONNX models: what onnxruntime makes of them is what PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from exported import exported_run, lively
from onnx import TensorProto, helper

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from bandsplit.decoder import apply_filter
from bandsplit.net import BandSplitNet
from bandsplit.stft import compressed, stft
from baseline.bsrnn import BSRNN, LSTMDualPath
from data.utils import DataError
from tools.onnx_check import check_model, compare, feed, session_of
from tools.onnx_graph import INPUT, SHAPES, STATISTICS, onnx_model
from tools.onnx_network import RealNetwork, compressed_parts, filtered_parts

# Together they have every operator that any network has: Mamba along time and bands, an adaptive
# decoder, a standardised split; LSTMs in one and both directions, norms over the recording.
SMALL = ("abl3", "bsrnn")
FULL: dict[str, Callable[[], BandSplitNet]] = {
    "baseline": BSRNN,
    "abl1": MBSNet1,
    "abl2": MBSNet2,
    "abl3": MBSNet3,
    "bsrnn_public": lambda: BSRNN(channels=64, norm="recording", time_first=True),
    "bsrnn_bi": lambda: BSRNN(4, bidirectional_time=True),
    "lstm_dualpath": LSTMDualPath,
    "uniform31": lambda: MBSNet3(hidden=(31, 31, 31)),
    "abl3_frame": lambda: MBSNet3(norm="frame"),
    "abl3_plain_split": lambda: MBSNet3(split_norm=False),
}


@cache
def exported(name: str) -> tuple[BandSplitNet, bytes]:
    if name == "abl3":
        return exported_run()
    network = lively(BSRNN(1, channels=16, split_norm=False, norm="recording", time_first=True))
    return network, onnx_model(network)


@pytest.mark.parametrize("name", SMALL)
def test_onnxruntime_gives_what_pytorch_gives(name: str):
    network, content = exported(name)
    check_model(content)
    # Frames in whole blocks of the scan, and not.
    for frames in (62, 300):
        checked = compare(network, content, frames)
        assert 0 < checked["largest_difference"] < 1e-5
        assert checked["frames"][-1] == frames


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_every_network_at_full_size(name: str):
    network = lively(FULL[name]())
    content = onnx_model(network)
    check_model(content)
    assert 0 < compare(network, content, 2501)["largest_difference"] < 2e-5


def test_any_number_of_spectra_and_frames_by_one_model():
    network, content = exported("abl3")
    model = onnx.load_from_string(content)
    for value in (*model.graph.input, *model.graph.output):
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert dims == SHAPES[value.name]
    assert [value.name for value in model.graph.input] == [INPUT, STATISTICS]
    session = session_of(content)
    given = feed(network, stft(torch.randn(3, 2000)))
    together = session.run(None, given)[0]
    for i, expected in enumerate(together):
        alone = session.run(None, {name: x[i : i + 1] for name, x in given.items()})[0][0]
        assert alone == pytest.approx(expected, abs=1e-5)


def test_the_statistics_are_those_that_are_given():
    network, content = exported("abl3")
    spectrum, statistics = stft(torch.randn(1, 2000)), torch.rand(1, 31, 2) + 0.1
    given = feed(network, spectrum) | {STATISTICS: statistics.numpy()}
    found = torch.view_as_complex(torch.from_numpy(session_of(content).run(None, given)[0]))
    features = network.split(spectrum, statistics)
    expected = apply_filter(network.decoder(network.layers(features)), spectrum)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_split_norm_a_spectrum_is_all_that_is_taken():
    model = onnx.load_from_string(exported("bsrnn")[1])
    assert [value.name for value in model.graph.input] == [INPUT]


@pytest.mark.parametrize("name", SMALL)
def test_silence_stays_silent(name: str):
    """onnxscript removes the 1e-9 of a plain compressed spectrum: 0 times infinity."""
    network, content = exported(name)
    given = feed(network, torch.zeros(1, 257, 5, dtype=torch.complex64))
    assert np.array_equal(session_of(content).run(None, given)[0], given[INPUT])


@pytest.mark.parametrize("part", ["layers", "decoder", "split"])
def test_another_networks_model_is_refused(part: str):
    network, content = exported("abl3")
    torch.manual_seed(2)
    other = lively(MBSNet3(channels=16))
    changed = {**network.state_dict()}
    changed |= {k: v for k, v in other.state_dict().items() if k.startswith(part)}
    other.load_state_dict(changed)
    with pytest.raises(DataError, match=r"differ by .* and 0.0001 is allowed. Nothing was kept"):
        compare(other, content, 10)


def test_a_little_is_too_much():
    network, content = exported("abl3")
    model = onnx.load_from_string(content)
    bias = next(x for x in model.graph.initializer if x.name.endswith("decoders.4.output.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values.flat[0] += 3e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    with pytest.raises(DataError, match="differ by"):
        compare(network, model.SerializeToString(), 10)


def test_nan_is_a_difference(monkeypatch: pytest.MonkeyPatch):
    network, content = exported("abl3")

    class Broken:
        def run(self, outputs: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full_like(feed["spectrum"], np.nan)]

    monkeypatch.setattr("tools.onnx_check.session_of", lambda content: Broken())
    with pytest.raises(DataError, match="differ by nan"):
        compare(network, content, 10)


def test_operators_of_others_are_refused():
    def model(domain: str) -> bytes:
        value = [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1]) for x in "xy"]
        node = helper.make_node("Relu", ["x"], ["y"], domain=domain)
        graph = helper.make_graph([node], "g", value[:1], value[1:])
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
        return helper.make_model(
            graph, opset_imports=opsets[: 1 + bool(domain)], ir_version=10
        ).SerializeToString()

    check_model(model(""))
    with pytest.raises(DataError, match="elsewhere"):
        check_model(model("elsewhere"))
    with pytest.raises(DataError, match="not valid ONNX"):
        check_model(model("").replace(b"Relu", b"Rolu"))


def test_a_model_says_nothing_of_the_machine():
    content = exported("abl3")[1]
    for text in (str(ROOT), "site-packages", "stack_trace", "Traceback"):
        assert text.encode() not in content


def test_an_export_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch):
    network, _ = exported("bsrnn")
    monkeypatch.setenv("BSBIMAMBA_SCAN", "reference")
    noisy = torch.randn(1, 1000)
    before = network.enhance(noisy)
    RealNetwork(network)
    assert torch.equal(network.enhance(noisy), before)


def test_real_parts_are_those_of_the_complex_forms():
    spectrum = stft(torch.randn(2, 3000))
    parts = torch.view_as_real(spectrum)
    found = torch.view_as_complex(compressed_parts(parts))
    torch.testing.assert_close(found, compressed(spectrum), rtol=1e-5, atol=1e-6)
    taps = torch.randn(*spectrum.shape, 3, dtype=torch.complex64)
    found = torch.view_as_complex(filtered_parts(torch.view_as_real(taps), parts))
    expected = apply_filter(taps + taps.new_tensor([0, 1, 0]), spectrum)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_real_network_is_the_network():
    network = exported("abl3")[0]
    spectrum = stft(torch.randn(2, 5000))
    expected = apply_filter(network.decoder(network.layers(network.split(spectrum))), spectrum)
    found = torch.view_as_complex(RealNetwork(network)(torch.view_as_real(spectrum)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
