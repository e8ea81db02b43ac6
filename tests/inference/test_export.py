"""Exported models: onnxruntime computes what PyTorch computes, and folders are written whole."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

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
# decoder; LSTMs in one and both directions, norms over the recording.
SMALL: dict[str, Callable[[], BandSplitNet]] = {
    "abl3": lambda: MBSNet(channels=16),
    "bsrnn": lambda: BSRNN(1, channels=16, norm="recording", time_first=True),
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
    assert described["inputs"].keys() == {INPUT, STATISTICS}


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
    given = feed(stft(torch.randn(3, 2000)))
    for i, expected in enumerate(run_onnx(content, given)):
        alone = run_onnx(content, {name: x[i : i + 1] for name, x in given.items()})[0]
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)
    # Other statistics than the spectrum's own give the result of those.
    spectrum, statistics = stft(torch.randn(1, 2000)), torch.rand(1, 31, 2) + 0.1
    found = run_onnx(content, feed(spectrum) | {STATISTICS: statistics.numpy()})
    taps = network.decoder(network.layers(network.split(spectrum, statistics)))
    torch.testing.assert_close(found, apply_filter(taps, spectrum), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [3e-3, float("nan")])
def test_checked_refuses_a_small_difference_and_nan(change: float):
    network, content = exported("abl3")
    other = copy.deepcopy(network)
    other.decoder.decoders[4].output.bias[0, 0, 0] += change
    with pytest.raises(DataError, match=r"differ by .* 0.0001 is allowed"):
        checked(other, content)


FILES = {"model.safetensors", "model.onnx", "config.json", "README.md"}
SHORT = {"length": 0.6, "context": 0.1, "fade": 0.1}  # windows, in seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a run whose settings name a folder, with a network that does something."""
    run = save_run(tmp_path_factory.mktemp("export") / "mine")
    state = saved(run / "best.pt")
    state["ema"]["model"] = lively(load_run(run).network).state_dict()
    config = json.loads(state["config"]) | {"data.root": str(run)}
    change(run / "best.pt", ema=state["ema"], config=json.dumps(config))
    words = [str(run), "-o", str(run / "model"), "--about", "Sounds."]
    with patch.multiple(Windows, **SHORT), patch.object(export, "Windows", lambda: Windows(1.0)):
        assert export.main(words) == 0
    return run / "model"


def test_export_writes_a_model_without_paths_of_this_machine(folder: Path):
    assert {x.name for x in folder.iterdir()} == FILES
    whole = b"".join(x.read_bytes() for x in folder.iterdir())
    for text in (ROOT, folder.parent, f"{Path.home()}/", "site-packages", "stack_trace"):
        assert str(text).encode() not in whole
    config = json.loads((folder / "config.json").read_text())
    assert config["windows"] == {"length": 9_600, "context": 1_536, "fade": 1_536}
    assert config["onnx"]["inputs"]["statistics"] == ["batch", 31, 2]


def example(folder: Path, recording: Path) -> np.ndarray | str:
    """Return the samples (s, channels) that docs/enhance_onnx.py writes, or its message."""
    program, out = ROOT / "docs" / "enhance_onnx.py", recording.with_name("out.WAV")
    command = [sys.executable, program, folder, recording, out]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == ("is not enhanced" in result.stderr)
    return result.stderr if result.returncode else sf.read(out, always_2d=True)[0]


def test_example_enhances_as_we_do(folder: Path, tmp_path: Path):
    model = Model(read_model(folder), Windows(**SHORT))
    x = np.stack([sound(1.3, 22_050), sound(1.3, 22_050, 1)])
    sf.write(tmp_path / "a.WAV", 20 * x[0], 16_000, "FLOAT")
    sf.write(tmp_path / "a.flac", x.T, 22_050)
    given = [sf.read(tmp_path / name, always_2d=True) for name in ("a.WAV", "a.flac")]
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # no length, as if from a pipe
    (tmp_path / "a.flac").write_bytes(content)
    for name, (x, rate) in zip(("a.WAV", "a.flac"), given, strict=True):
        expected = model(x.T, rate).T
        assert np.abs(expected - x).max() > 0.01
        found = example(folder, tmp_path / name)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.sqrt(np.mean(expected**2)))


def test_example_reads_an_mp3_to_its_end_and_reports_bad_files(folder: Path, tmp_path: Path):
    x = np.append(sound(0.5, 48_000), sound(1.5, 48_000) / 100)
    mp3, m4a, wav = (tmp_path / f"a.{kind}" for kind in ("mp3", "m4a", "wav"))
    sf.write(mp3, x, 48_000, bitrate_mode="VARIABLE")
    content = mp3.read_bytes()
    mp3.write_bytes(content[content.index(content[:2], 4) :])  # the first frame tells its length
    assert sf.info(mp3).frames < 0.9 * len(x)
    assert 0 <= len(example(folder, mp3)) - len(x) <= 2 * 1152
    m4a.write_bytes(b"\0\0\0\x20ftypM4A ")
    sf.write(wav, x, 48_000)
    wav.write_bytes(wav.read_bytes()[:9_000])
    for path, reason in ((m4a, "not recognised"), (wav, "cut short"), (tmp_path / "b", "No such")):
        assert re.fullmatch(f"{path} is not enhanced: .*{reason}.*\n", example(folder, path))


def test_export_refuses_wrong_input_and_replaces_models_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "model"
    words = [str(run), "--no-onnx", "-o", str(folder)]
    monkeypatch.setattr(export, "onnx_model", lambda network: exported("abl3")[1])  # another's
    for wrong in (run, run / "absent"):
        assert export.main([str(wrong), "-o", str(folder)]) == 2
    assert not folder.exists()
    assert export.main(words) == 0
    (folder / "model.onnx").write_text("of the network before")
    assert export.main(words) == 0
    assert {path.name for path in folder.iterdir()} == FILES - {"model.onnx"}
    assert export.main([*words, "-o", str(run)]) == 2
    errors = capsys.readouterr().err
    for reason in ("differ by", "no shipped model", "holds other files"):
        assert reason in errors


def test_export_knows_our_operators_also_where_the_network_has_none():
    code = "import torch, bsbimamba.inference.export as _; own = torch.ops.bsbimamba; "
    code += "own.scan_chunked, own.conv_silu"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_export_without_onnx_needs_none_of_its_packages(run: Path, tmp_path: Path):
    words = [str(run), "--no-onnx", "-o", str(tmp_path / "model")]
    code = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxscript', 'onnx_ir']));"
    code += f"from bsbimamba.inference import export; raise SystemExit(export.main({words}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert read_model(tmp_path / "model").step == 3
