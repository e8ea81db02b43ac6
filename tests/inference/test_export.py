"""Exported models: onnxruntime computes what PyTorch computes, and folders are written whole."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile as sf
import torch
from conftest import ROOT
from recordings import sound
from saved_runs import change, lively, save_run
from saved_runs import load as saved
from torch import Tensor

from abl3.mbs_net import MBSNet
from baseline.bsrnn import BSRNN
from benchmarks.step import networks
from bsbimamba.inference import export
from bsbimamba.inference.export import INPUT, SHAPES, STATISTICS, checked, feed, onnx_model
from bsbimamba.inference.model import Model
from bsbimamba.inference.trained import load_run, read_model
from bsbimamba.inference.windows import Windows
from bsbimamba.network.decoder import apply_filter
from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.stft import stft
from bsbimamba.utils import DataError

# Together they have every operator that any network has: Mamba along time and bands, an adaptive
# decoder, a standardised split; LSTMs in one and both directions, norms over the recording.
SMALL: dict[str, Callable[[], BandSplitNet]] = {
    "abl3": lambda: MBSNet(channels=16),
    "bsrnn": lambda: BSRNN(1, channels=16, split_norm=False, norm="recording", time_first=True),
}


@pytest.fixture(autouse=True)
def _short_windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a window of a second instead of 30, but in slow tests."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(export, "Windows", lambda: Windows(1.0, 0.2, 0.1))


@cache
def exported(name: str) -> tuple[BandSplitNet, bytes]:
    torch.manual_seed(0)
    network = lively(SMALL[name]())
    return network, onnx_model(network)


def run_onnx(content: bytes, given: dict[str, np.ndarray]) -> Tensor:
    """Return what onnxruntime computes, as complex spectra (b, f, t)."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.view_as_complex(torch.from_numpy(session.run(None, given)[0]))


@pytest.mark.parametrize("name", SMALL)
def test_onnxruntime_computes_what_pytorch_computes(name: str):
    """The signals of `checked` include silence and a swelling noise."""
    network, content = exported(name)
    described = checked(network, content)
    assert 0 < described["largest_difference"] < 1e-5
    assert described["inputs"].keys() == ({INPUT, STATISTICS} if name == "abl3" else {INPUT})
    for text in (str(ROOT), "site-packages", "stack_trace"):
        assert text.encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in networks() if x != "looped"])
def test_onnxruntime_computes_every_network_at_full_size(name: str):
    kind, config = networks()[name]
    network = lively(kind(**config.model))
    assert 0 < checked(network, onnx_model(network))["largest_difference"] < 2e-5


def test_onnx_model_takes_any_batch_length_and_statistics():
    network, content = exported("abl3")
    graph = onnx.load_from_string(content).graph
    for value in (*graph.input, *graph.output):
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert dims == SHAPES[value.name]
    given = feed(network, stft(torch.randn(3, 2000)))
    for i, expected in enumerate(run_onnx(content, given)):
        alone = run_onnx(content, {name: x[i : i + 1] for name, x in given.items()})[0]
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)
    # Other statistics than the spectrum's own give the result of those.
    spectrum, statistics = stft(torch.randn(1, 2000)), torch.rand(1, 31, 2) + 0.1
    found = run_onnx(content, feed(network, spectrum) | {STATISTICS: statistics.numpy()})
    taps = network.decoder(network.layers(network.split(spectrum, statistics)))
    torch.testing.assert_close(found, apply_filter(taps, spectrum), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [3e-3, float("nan")])
def test_checked_refuses_a_small_difference_and_nan(change: float):
    network, content = exported("abl3")
    other = copy.deepcopy(network)
    other.decoder.decoders[4].output.bias[0, 0, 0] += change
    with pytest.raises(DataError, match=r"differ by .* 0.0001 is allowed"):
        checked(other, content)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of models for this test alone."""
    monkeypatch.setattr("bsbimamba.inference.trained.MODELS", tmp_path / "models")
    return tmp_path / "models"


def test_export_writes_a_model_that_other_programs_can_use(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The example in docs/export.md, which uses only numpy and onnxruntime, enhances as we do."""
    run = save_run(tmp_path / "mine")
    state = {"model": lively(load_run(run).network).state_dict()}
    change(run / "best.pt", ema=saved(run / "best.pt")["ema"] | state)
    assert export.main([str(run), "-o", str(models / "mine"), "--about", "Sounds."]) == 0
    folder = models / "mine"
    files = {"model.safetensors", "model.onnx", "config.json", "README.md"}
    assert {x.name for x in folder.iterdir()} == files
    config = json.loads((folder / "config.json").read_text())
    assert config["windows"] == {"length": 480_000, "context": 96_000, "fade": 8_192}
    assert config["onnx"]["inputs"]["statistics"] == ["batch", 31, 2]
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    folder.rename(models / "abl3")
    x = sound(1.3).astype(np.float32)
    sf.write("noisy.wav", x, 16_000, "FLOAT")
    exec(compile(code, "docs/export.md", "exec"), {})
    expected = Model(read_model(models / "abl3"))(x, 16_000)
    assert np.abs(expected - x).max() > 0.01
    np.testing.assert_allclose(sf.read("enhanced.wav")[0], expected, atol=1e-4)


def test_export_refuses_wrong_input_and_replaces_models_only(
    run: Path, models: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    folder = models / "run"
    words = [str(run), "--no-onnx", "-o", str(folder)]
    monkeypatch.setattr(export, "onnx_model", lambda network: exported("abl3")[1])  # another's
    for wrong in (run, run / "absent"):
        assert export.main([str(wrong), "-o", str(folder)]) == 2
    assert not models.exists()
    assert export.main(words) == 0
    (folder / "model.onnx").write_text("of the network before")
    assert export.main(words) == 0
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    assert export.main([*words, "-o", str(run)]) == 2
    errors = capsys.readouterr().err
    for reason in ("differ by", "no shipped model", "holds other files"):
        assert reason in errors


def test_export_without_onnx_needs_none_of_its_packages(run: Path, tmp_path: Path):
    words = [str(run), "--no-onnx", "-o", str(tmp_path / "model")]
    code = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxscript', 'onnx_ir']));"
    code += f"from bsbimamba.inference import export; raise SystemExit(export.main({words}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert read_model(tmp_path / "model").step == 3
