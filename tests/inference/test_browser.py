"""The report page in a real browser: nothing is loaded, tables sort, players play."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from systems import analysed, system

from bsbimamba.data.audio import write
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.report.analysis import System
from bsbimamba.report.html import report
from bsbimamba.utils import write_text

pytestmark = pytest.mark.browser

NAMES = ("noisy", "abl3", "<script>evil()</script>")
SECONDS = 3.0
FILES = [*(f"file {n}" for n in range(10)), '"><img src=x onerror=evil()>', "ü #?%"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    if not (found := next(filter(None, map(shutil.which, names)), None)):
        pytest.skip("there is no Chromium (Debian's package chromium)")
    with playwright.sync_playwright() as started:
        # The sandbox is none for root.
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = started.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of three systems on twelve files, not all of which fit into the page."""
    folder = tmp_path_factory.mktemp("page")
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE)
    files: dict[str, dict[str, Path]] = {name: {} for name in ("clean", *NAMES)}
    for place, paths in enumerate(files.values()):
        for number, utterance in enumerate(FILES):
            paths[utterance] = folder / "audio" / str(place) / f"{number} #?%.wav"
            paths[utterance].parent.mkdir(parents=True, exist_ok=True)
            write(paths[utterance], tone + 0.02 * np.random.default_rng(place).random(len(tone)))
    log = [{"step": s, "train": {"loss": 1 / s}, "valid": {"pesq_wb": 2 + s / 9}} for s in (1, 2)]
    systems = []
    for place, name in enumerate(NAMES):
        pesqs = {x: None if n == 3 else 1 + place + n / 10 for n, x in enumerate(FILES)}
        facts = system(name, {}, family={"is": name})[0].facts if place else {}
        systems.append((System(name, files[name], facts, log if place else ()), pesqs))
    analysis = analysed(*systems, data="a corpus & <more>", clean=files["clean"])
    with patch("bsbimamba.report.html.BUDGET", 0.5e6):
        write_text(folder / "report.html", report(analysis, folder))
    return folder / "report.html"


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """Open the page. At the end, only files beside it may have been requested, without errors."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(page_file.as_uri())
    yield page
    beside = page_file.parent.as_uri()
    assert not [url for url in asked if not url.startswith(("data:", beside))]
    assert not faults
    context.close()


def playing(page: Any, player: int) -> tuple[str, float, bool]:
    """Return the version that a player plays, its position in s, and whether it is paused."""
    found = f"players.at({player})"
    return tuple(page.evaluate(f"[{found}.name, {found}.audio.currentTime, {found}.audio.paused]"))


def test_page_is_whole_and_names_are_not_executed(page: Any):
    assert page.title() == f"Comparison on {Path.cwd().name}/a corpus & <more>"
    assert "<script>evil()</script>" in page.locator("#tables").inner_text()
    assert not page.evaluate("Boolean(document.querySelector('img[src=x]'))")
    counts = {"#plots img": 2, "#featured .player": 3, ".picture img": 12}
    assert {name: page.locator(name).count() for name in counts} == counts
    assert min(page.evaluate("[...document.images].map(image => image.naturalWidth)")) > 100
    # Some files are embedded; the others are linked.
    sources = page.evaluate("FILES.flatMap(file => Object.values(file.sources))")
    assert 12 <= sum(source.startswith("data:audio/wav") for source in sources) < 48 == len(sources)
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_tables_sort_both_ways_with_missing_values_last(page: Any):
    noisy = page.locator(".files thead button", has_text="noisy")
    for descending in (True, False):
        noisy.press("Enter")
        values = page.locator(".files tbody tr > :nth-child(2)").all_inner_texts()
        assert values[-1] == ""
        assert values[:-1] == sorted(values[:-1], reverse=descending)


def test_switching_while_playing_continues_at_the_same_position(page: Any):
    page.evaluate("players[0].audio.play()")
    page.wait_for_function("players[0].audio.currentTime > 0.4")
    assert playing(page, 0)[0] == "noisy"
    jump = page.evaluate("""async () => {
        const [{audio, root}] = players, before = audio.currentTime;
        root.querySelector("[value=clean]").click();
        await new Promise((heard) => audio.addEventListener("playing", heard, { once: true }));
        return audio.currentTime - before;
    }""")
    assert 0 <= jump < 0.1
    assert playing(page, 0)[::2] == ("clean", False)
    page.evaluate("players[1].audio.play()")
    page.wait_for_function(
        "players[0].audio.paused && !players[1].audio.paused"
    )  # only one player plays


@pytest.mark.parametrize("name", ["file 4", *FILES[-2:]])
def test_any_file_can_be_heard(page: Any, name: str):
    """The last two are linked, and their names have characters that are special in addresses."""
    page.locator(".files tbody tr").nth(sorted(FILES).index(name)).press("Enter")
    assert page.locator("#listen .now").text_content() == name
    page.wait_for_function("players.at(-1).audio.currentTime > 0.2")
    assert playing(page, -1)[0] == "noisy"
    assert page.evaluate("players.at(-1).audio.duration") == pytest.approx(SECONDS, abs=0.01)
