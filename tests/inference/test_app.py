"""The page: its limits, its command, and a real server, asked by Gradio's client."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import sound
from saved_runs import save_run

import app
from bsbimamba.inference.model import load
from bsbimamba.utils import DataError, UserError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Path], int]]:
    """Serve two small models by `python app.py`; return them and the port.

    At the end, SIGTERM must end it with status 0 and its files must be gone.
    """
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("served")
    models = [save_run(folder / name, seed) for seed, name in enumerate(("one", "other"))]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-u", ROOT / "app.py", *models, "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert "Running on local URL" in process.stdout.readline()
        (files,) = folder.glob("bs-bimamba-page-*")
        yield models, port
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not files.exists()
    finally:
        process.kill()
        process.communicate()


def test_page_enhances_by_the_chosen_model_and_reports_errors(
    served: tuple[list[Path], int], tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    (_, chosen), port = served
    client = Client(f"http://127.0.0.1:{port}/", verbose=False, httpx_kwargs={"timeout": 60})
    x = np.stack([sound(0.7, 22050), sound(0.7, 22050, 1)], 1).astype(np.float32)
    path = tmp_path / "a b.wav"
    sf.write(path, x, 22050, "FLOAT")
    clean, removed, picture = client.predict(handle_file(path), str(chosen), api_name="/enhance")
    expected = load(chosen, "cpu")(x.T.copy(), 22050).T
    made = {"enhanced": (clean, expected), "removed noise": (removed, x - expected)}
    for kind, (file, values) in made.items():
        found, rate = sf.read(file, dtype="float32")
        assert (Path(file).name, rate) == (f"a b {kind}.wav", 22050)
        assert found == pytest.approx(values, abs=1e-6)
    assert Path(picture).stat().st_size > 10_000
    (tmp_path / "text.wav").write_bytes(b"no audio at all")
    sf.write(tmp_path / "long.wav", np.zeros(16_000 * 601, np.int16), 16_000)
    sf.write(tmp_path / "wide.wav", np.zeros((16_000, 3)), 16_000)
    limits = "at most 10 minutes in mono or stereo"
    reasons = {"text": "cannot be decoded", "long": limits, "wide": limits}
    for name, reason in reasons.items():
        with pytest.raises(AppError, match=reason):
            client.predict(handle_file(tmp_path / f"{name}.wav"), str(chosen), api_name="/enhance")
    with pytest.raises(AppError, match="upload or record something"):
        client.predict(None, str(chosen), api_name="/enhance")
    # A port that is taken is reported in one line.
    command = [sys.executable, ROOT / "app.py", chosen, "--port", str(port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert f"Cannot find empty port in range: {port}" in result.stderr.splitlines()[-1]


def test_load_models_finds_those_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "ROOT", tmp_path)
    monkeypatch.setattr(app, "MODELS", tmp_path / "models")
    with pytest.raises(DataError, match="no trained model"):
        app.load_models([])
    for name, file in (("b", "last.pt"), ("a", "best.pt")):
        save_run(tmp_path / "runs" / name, name=file)
    assert list(app.load_models([])) == ["runs/a", "runs/b"]
    (tmp_path / "runs" / "a" / "best.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"best\.pt"):
        app.load_models([])
