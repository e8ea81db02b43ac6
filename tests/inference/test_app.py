"""The page: its command, and a real server in a real browser."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import SAMPLE
from saved_runs import save_run
from test_browser import browser as browser

import app
from bsbimamba.inference.model import load
from bsbimamba.inference.trained import load_run, write_model
from bsbimamba.utils import DataError, UserError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], int]]:
    """Serve a small model and the shipped one by `python app.py`; return them and the port.

    At the end, SIGTERM must end it with status 0 and its files must be gone.
    """
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("served")
    models = [str(save_run(folder / "run")), "abl3"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-u", ROOT / "app.py", *models, "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert "Running on local URL" in process.stdout.readline()
        (files,) = folder.glob("bs-bimamba-page-*")
        yield models, port
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not files.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.browser
def test_page_enhances_by_the_chosen_model(served: Any, browser: Any, tmp_path: Path) -> None:
    (_, chosen), port = served
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{port}/")
    path = SAMPLE / "test" / "noisy" / "p232_114.flac"
    page.set_input_files("input[type=file]", path)
    page.get_by_label("Clear").wait_for()
    page.get_by_label(chosen).check()
    page.get_by_role("button", name="Enhance").click()
    page.wait_for_function("document.querySelectorAll('a[download]').length == 4")
    x, _ = sf.read(path, dtype="float32")
    clean = load(chosen, "cpu")(x, 16_000)
    made = {"noisy": x, "enhanced": clean, "removed noise": x - clean}
    links = page.locator("a[download]").all()[1:]
    for link, (kind, expected) in zip(links, made.items(), strict=True):
        assert link.get_attribute("download") == f"p232_114 {kind}.wav"
        found, rate = sf.read(BytesIO(page.request.get(link.get_attribute("href")).body()))
        assert rate == 16_000
        np.testing.assert_allclose(found, expected, atol=1e-6)
    players = page.locator("audio[src]")
    players.nth(3).wait_for(state="attached")
    play = "all => Promise.all(all.map(x => x.play().then(() => x.duration)))"
    assert players.evaluate_all(play) == pytest.approx([len(x) / 16_000] * 4, abs=1e-3)
    page.wait_for_function("document.querySelector('img')?.naturalWidth > 500")
    (tmp_path / "text.m4a").write_bytes(b"no audio at all")
    sf.write(tmp_path / "long.wav", np.zeros(16_000 * 601, np.int16), 16_000)
    for name, reason in {"text.m4a": "cannot be decoded", "long.wav": "at most 10 minutes"}.items():
        page.get_by_label("Clear").first.click()
        page.set_input_files("input[type=file]", tmp_path / name)
        page.get_by_label("Clear").first.wait_for()
        page.get_by_role("button", name="Enhance").click()
        page.get_by_text(reason).last.wait_for()
    assert not [x for x in asked if not x.startswith((page.url, "blob:", "data:"))]
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
    write_model(tmp_path / "models" / "z", load_run(tmp_path / "runs" / "a"))
    assert list(app.load_models([])) == ["models/z", "runs/a", "runs/b"]
    (tmp_path / "runs" / "a" / "best.pt").write_bytes(b"damaged")
    assert list(app.load_models([])) == ["models/z", "runs/b"]
    with pytest.raises(UserError, match=r"best\.pt"):
        app.load_models(["runs/a"])
