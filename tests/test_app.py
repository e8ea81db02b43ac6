"""The page: its limits, its command, and a real server, asked by Gradio's client and Chromium."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import sound
from saved_runs import save_run

import app
from data.audio import AudioError
from data.utils import DataError
from enhancement.model import load

SPOKEN = sound(1.0)


@dataclass
class Served:
    """A page that is being served: with which models, where, and its folder for files."""

    process: subprocess.Popen[str]
    models: list[Path]
    address: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`python app.py` with two small models. SIGTERM ends it with status 0, and its files go."""
    pytest.importorskip("gradio", reason="gradio (requirements-demo.txt) is not installed")
    folder = tmp_path_factory.mktemp("served")
    models = [save_run(folder / name, seed) for seed, name in enumerate(("one", "other"))]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-u", ROOT / "app.py", *models, "--port", port]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert "Running on local URL" in process.stdout.readline()
        (files,) = folder.glob("bs-bimamba-page-*")
        yield Served(process, models, f"http://127.0.0.1:{port}/", files)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not files.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    from gradio_client import Client

    return Client(served.address, verbose=False, httpx_kwargs={"timeout": 60})


def put(path: Path, x: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    sf.write(path, x, rate, subtype)
    return path


def test_page_enhances_by_the_chosen_model(served: Served, client: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file

    x = np.stack([sound(0.7, 22050), sound(0.7, 22050, 1)], 1).astype(np.float32)
    path = put(tmp_path / "a b.wav", x, 22050, "FLOAT")
    chosen = served.models[1]
    clean, removed, picture = client.predict(handle_file(path), str(chosen), api_name="/enhance")
    assert [Path(file).name for file in (clean, removed)] == [
        "a b enhanced.wav",
        "a b removed noise.wav",
    ]
    expected = load(chosen, "cpu")(x.T.copy(), 22050).T
    for file, values in ((clean, expected), (removed, x - expected)):
        found, rate = sf.read(file, dtype="float32")
        assert rate == 22050
        assert found == pytest.approx(values, abs=1e-6)
    assert Path(picture).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "x", "rate", "reason"),
    [
        ("long.flac", np.zeros(4000 * 601), 4000, "10.0 minutes, channels: 1; at most 10"),
        ("wide.wav", np.tile(SPOKEN[:, None], 3), 16000, "channels: 3; at most 10 minutes"),
        ("empty.wav", SPOKEN[:0], 16000, "empty: no samples"),
        ("nan.wav", np.full(4000, np.nan), 16000, "NaN or infinite"),
        ("slow.wav", SPOKEN, 2000, "a sampling rate of 2000 Hz"),
    ],
)  # fmt: skip
def test_unusable_recording_is_refused_with_the_reason(
    tmp_path: Path, name: str, x: np.ndarray, rate: int, reason: str
) -> None:
    model = load(save_run(tmp_path / "run"), "cpu")
    path = put(tmp_path / name, x, rate, "FLOAT" if name == "nan.wav" else "PCM_16")
    with pytest.raises(AudioError, match=re.escape(reason)):
        app.separate(path, model, lambda share, desc: None)


def test_client_is_told_what_is_wrong(served: Served, client: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    path = tmp_path / "text.wav"
    path.write_bytes(b"no audio at all")
    for given, reason in ((handle_file(path), "cannot be decoded"), (None, "Upload or record")):
        with pytest.raises(AppError, match=re.escape(reason)):
            client.predict(given, str(served.models[0]), api_name="/enhance")
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict(None, "unknown", api_name="/enhance")


def test_files_that_were_not_uploaded_are_not_read(served: Served, tmp_path: Path) -> None:
    path = put(tmp_path / "own.wav", SPOKEN)
    api = f"{served.address}gradio_api"
    file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    called = httpx.post(
        f"{api}/call/enhance", json={"data": [file, str(served.models[0])]}, timeout=60
    )
    answer = httpx.get(f"{api}/call/enhance/{called.json()['event_id']}", timeout=60).text
    assert answer.startswith("event: error")
    assert httpx.get(f"{api}/file={path}").status_code == 403


def test_models_that_are_here_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "MODELS", tmp_path / "models")
    monkeypatch.setattr(app, "RUNS", tmp_path / "runs")
    with pytest.raises(DataError, match="no trained model"):
        app.load_models([])
    for name, file in (("b", "last.pt"), ("a", "best.pt"), ("c", "best.pt")):
        save_run(tmp_path / "runs" / name, name=file)
    (tmp_path / "runs" / "c" / "best.pt").write_bytes(b"damaged")
    assert list(app.load_models([])) == ["runs/a", "runs/b"]
    assert "app.py: left out: " in capsys.readouterr().err
    with pytest.raises(DataError, match=r"best\.pt"):
        app.load_models(["runs/c"])


@pytest.mark.parametrize(
    ("model", "message"),
    [("run", "--port PORT: Cannot find empty port"), ("none", "no such run folder")],
)
def test_command_says_what_is_wrong(tmp_path: Path, model: str, message: str) -> None:
    pytest.importorskip("gradio", reason="gradio (requirements-demo.txt) is not installed")
    save_run(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, ROOT / "app.py", tmp_path / model, "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert message.replace("PORT", port) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.browser
def test_browser_uploads_records_and_shows_results(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    """A file, then the microphone; and not one request to another server."""
    context = browser.new_context(permissions=["microphone"])
    tab = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(served.address)
    tab.locator("input[type=file]").set_input_files(put(tmp_path / "a.wav", SPOKEN))
    tab.get_by_label("Clear").wait_for()
    tab.get_by_role("button", name="Enhance").click()
    tab.wait_for_function("[...document.images].some(image => image.naturalWidth > 500)")
    tab.locator("a[download='a enhanced.wav']").wait_for()
    tab.locator("a[download='a removed noise.wav']").wait_for()
    tab.get_by_label("Clear").click()
    tab.get_by_label("Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(1500)
    tab.locator("button:visible", has_text="Stop").click()
    tab.locator("a[download][href$='/audio.wav']").wait_for()
    tab.get_by_role("button", name="Enhance").click()
    tab.locator("a[download='audio enhanced.wav']").wait_for()
    context.close()
    assert faults == []
    own = (served.address, f"blob:{served.address}", "data:")
    assert [url for url in asked if not url.startswith(own)] == []
