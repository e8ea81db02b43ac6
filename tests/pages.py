"""A page of three systems in a real browser, and how its players are looked into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from systems import FACTS

from data.audio import SAMPLE_RATE, write
from data.utils import write_text
from evaluation.analysis import System, analyse
from evaluation.html import report
from evaluation.scores import METRICS

NAMES = ("noisy", "abl3", "<script>evil()</script>")
VOICES = (*NAMES, "clean")  # as the script numbers them
SECONDS = 3.0
# Chromium by its Debian and its other names.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium (Debian's package chromium)")
    with playwright.sync_playwright() as started:
        # The sandbox is none for root; sound goes nowhere, but at its own speed. The microphone is
        # one that beeps.
        media = [f"--use-fake-{each}-for-media-stream" for each in ("ui", "device")]
        arguments = ["--no-sandbox", *media]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three systems on twelve files, the audio of some of which lies beside it."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    names = [f"file {n}" for n in range(9)] + ['"><img src=x onerror=evil()>', "\udcff", "a\rb"]
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE)
    files: dict[str, dict[str, Path]] = {}
    for place, system in enumerate(("clean", *NAMES)):
        files[system] = {}
        for number, name in enumerate(names):
            path = folder / "audio" / str(place) / f"{number} #?%.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, (tone + 0.02 * rng.standard_normal(len(tone))).astype(np.float32))
            files[system][name] = path
    rows = pd.DataFrame([
        {
            **dict.fromkeys(METRICS, np.nan),
            "system": system, "utterance": name, "note": "", "key": "",
            **({} if number == 3 else {"pesq_wb": 1 + place + number / 10, "snr": 5.0}),
        }
        for place, system in enumerate(NAMES)
        for number, name in enumerate(names)
    ])  # fmt: skip
    log = [
        {"step": s, "epoch": 0, "train": {"loss": 1 / s}, "valid": {"pesq_wb": 2 + s / 9}}
        for s in range(1, 9)
    ]
    systems = [
        System(system, files[system], {**FACTS, "family": {"is": system}} if place else {},
               log if system == "abl3" else ())
        for place, system in enumerate(NAMES)
    ]  # fmt: skip
    out = folder / "report.html"
    analysis = analyse(systems, rows, files["clean"], "a corpus & <more>")
    write_text(out, report(analysis, folder, 0.5e6))
    return out


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, open; at the end nothing may have been asked for but itself and files beside it."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    expected = "ERR_FILE_NOT_FOUND"  # one test takes a file away
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(page_file.as_uri())
    yield page
    beside = page_file.parent.as_uri()
    assert not [url for url in asked if not url.startswith(("data:", beside))]
    assert not [fault for fault in faults if expected not in fault]
    context.close()


def heard(page: Any, player: str) -> list[tuple[str, float, bool, bool]]:
    """Of each voice of a player: its name, where it is, whether it is mute, and paused."""
    script = """selector => {
        const player = players.find(each => each.root.matches(selector));
        return [...player.voices].map(([n, v]) => [n, v.currentTime, v.muted, v.paused]);
    }"""
    return [(VOICES[int(n)], *voice) for n, *voice in page.evaluate(script, player)]


def until(page: Any, condition: str) -> None:
    """Wait for it. (Playwright's own way has the page evaluate text, which it does not allow.)"""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


FIRST = "#featured article:first-of-type .player"
PANEL = "#listen .player"
