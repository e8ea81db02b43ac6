"""`examples/onnx_enhance.py`: it does what `enhance.load` does, by onnxruntime alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from exported import SHORT, prepare, save_lively_run
from recordings import sound

from enhancement.find import find
from enhancement.model import Model
from tools import export

EXAMPLE = ROOT / "examples" / "onnx_enhance.py"
# Runs the example where nothing of this project nor PyTorch can be imported.
ALONE = """
import runpy, sys
allowed = {"numpy", "soundfile", "soxr", "onnxruntime"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in STRANGERS:
            raise ImportError(f"{name} is out of bounds")
sys.meta_path.insert(0, Blocked())
sys.argv = ARGUMENTS
runpy.run_path(sys.argv[0], run_name="__main__")
assert not STRANGERS & {name.partition(".")[0] for name in sys.modules}
"""
STRANGERS = {
    "torch", "scipy", "numba", "einops", "onnx", "onnxscript", "safetensors", "bandsplit", "scan",
    "enhancement", "enhance", "data", "tools", "training", "recompute", "evaluation",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        assert export.main([str(save_lively_run(path / "run")), "-o", str(path / "model")]) == 0
    return path / "model"


def run_alone(*arguments: Path, status: int = 0) -> str:
    code = f"STRANGERS = {STRANGERS!r}\nARGUMENTS = {[str(x) for x in (EXAMPLE, *arguments)]!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + ALONE],
        capture_output=True, text=True, cwd=arguments[-1].parent if arguments else None,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("seconds", "rate", "channels"),
    [
        (2.0, 16000, 1),  # four windows
        (0.8, 16000, 1),  # exactly one
        (0.81, 16000, 2),
        (1 / 16000, 16000, 1),
        (1.7, 44100, 2),
        (0.9, 8000, 1),
        (1 / 48000, 48000, 1),
    ],
)
def test_it_gives_what_load_gives(
    folder: Path, tmp_path: Path, seconds: float, rate: int, channels: int
):
    x = np.stack([sound(seconds, rate, seed) for seed in range(channels)], 1).astype(np.float32)
    sf.write(tmp_path / "noisy.wav", x, rate, "FLOAT")
    run_alone(folder, tmp_path / "noisy.wav", tmp_path / "enhanced.wav")
    found, found_rate = sf.read(tmp_path / "enhanced.wav", dtype="float32", always_2d=True)
    assert found_rate == rate
    assert found.shape == x.shape
    expected = Model("it", find(folder), SHORT)(np.ascontiguousarray(x.T), rate).T
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    if seconds > 0.1:
        assert np.abs(expected - x).max() > 0.01  # the network does something


def test_silence_and_formats(folder: Path, tmp_path: Path):
    sf.write(tmp_path / "silent.flac", np.zeros(20000), 16000)
    run_alone(folder, tmp_path / "silent.flac", tmp_path / "enhanced.flac")
    found, _ = sf.read(tmp_path / "enhanced.flac")
    assert np.array_equal(found, np.zeros(20000))


def test_what_it_says(folder: Path, tmp_path: Path):
    assert run_alone(status=1).startswith("usage: python onnx_enhance.py")
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    assert "is empty" in run_alone(folder, tmp_path / "empty.wav", tmp_path / "x.wav", status=1)
    run = folder.parent / "run"
    assert export.main([str(run), "-o", str(tmp_path / "plain"), "--no-onnx"]) == 0
    sf.write(tmp_path / "noisy.wav", sound(0.1), 16000)
    said = run_alone(tmp_path / "plain", tmp_path / "noisy.wav", tmp_path / "x.wav", status=1)
    assert "has no ONNX model" in said
    said = run_alone(tmp_path, tmp_path / "noisy.wav", tmp_path / "x.wav", status=1)
    assert f"{tmp_path} is no exported model" in said
    assert not (tmp_path / "x.wav").exists()


def test_it_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 140
