"""The page in a real browser: it loads nothing, sorts, fits, and its players play in step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from systems import analysed, system

from bsbimamba.data.audio import SAMPLE_RATE, write
from bsbimamba.report.analysis import System
from bsbimamba.report.html import report
from bsbimamba.utils import write_text

pytestmark = pytest.mark.browser

NAMES = ("noisy", "abl3", "<script>evil()</script>")
SECONDS = 3.0
FILES = [*(f"file {n}" for n in range(10)), '"><img src=x onerror=evil()>', "ü #?%"]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three systems on twelve files, the audio of some of which lies beside it."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE)
    files: dict[str, dict[str, Path]] = {}
    for place, name in enumerate(("clean", *NAMES)):
        files[name] = {}
        for number, utterance in enumerate(FILES):
            path = folder / "audio" / str(place) / f"{number} #?%.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, (tone + 0.02 * rng.standard_normal(len(tone))).astype(np.float32))
            files[name][utterance] = path
    log = [{"step": s, "train": {"loss": 1 / s}, "valid": {"pesq_wb": 2 + s / 9}} for s in (1, 2)]
    systems = []
    for place, name in enumerate(NAMES):
        pesqs = {x: None if n == 3 else 1 + place + n / 10 for n, x in enumerate(FILES)}
        facts = system(name, {}, family={"is": name})[0].facts if place else {}
        systems.append((System(name, files[name], facts, log if place else ()), pesqs))
    analysis = analysed(*systems, data="a corpus & <more>", clean=files["clean"])
    write_text(folder / "report.html", report(analysis, folder, 0.5e6))
    return folder / "report.html"


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


def voices(page: Any, player: int = 0) -> dict[str, tuple[float, bool, bool]]:
    """Where each voice of a player is, and whether it is mute, and paused."""
    script = """number => Object.fromEntries([...players.at(number).voices].map(
        ([name, voice]) => [name, [voice.currentTime, voice.muted, voice.paused]]))"""
    return {name: tuple(state) for name, state in page.evaluate(script, player).items()}


def audible(page: Any, player: int = 0) -> list[str]:
    return [name for name, (_, mute, _) in voices(page, player).items() if not mute]


def until(page: Any, condition: str) -> None:
    """Wait for it. (Playwright's own way has the page evaluate text, which it does not allow.)"""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


def test_page_is_whole_and_names_are_not_executed(page: Any):
    assert page.title() == "Comparison on a corpus & <more>"
    assert page.locator("#tables tbody").first.locator("tr").count() == 3
    assert "<script>evil()</script>" in page.locator("#tables").inner_text()
    assert page.locator("#plots img").count() == 5
    assert page.locator("#featured .player").count() == 3
    assert page.locator(".picture img").count() == 12
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert min(sizes) > 100
    assert not page.evaluate("Boolean(document.querySelector('img[src=x]'))")
    # Fewer than all files are in the page; the others are played from where they lie.
    sources = page.evaluate("FILES.flatMap(file => Object.values(file.sources))")
    assert len(sources) == 48
    assert 12 <= sum(source.startswith("data:audio/wav") for source in sources) < 48


def column(page: Any, number: int) -> list[str]:
    return page.locator(f".files tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_sort_both_ways_with_missing_values_last(page: Any):
    noisy = page.locator(".files thead button", has_text="noisy")
    noisy.click()
    values = column(page, 2)
    assert values[-1] == ""
    assert values[:-1] == sorted(values[:-1], reverse=True)
    noisy.press("Enter")
    values = column(page, 2)
    assert values[-1] == ""
    assert values[:-1] == sorted(values[:-1])
    page.locator(".files thead button", has_text="file").click()
    names = column(page, 1)
    assert names.index("file 2") < names.index("file 8")


@pytest.mark.parametrize("width", [390, 1200])
def test_page_is_as_wide_as_the_screen(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_switching_while_playing_goes_on_at_the_same_place(page: Any):
    page.evaluate("players[0].heard.play()")
    until(page, "players[0].heard.currentTime > 0.4")
    before = voices(page)
    assert before.keys() == {*NAMES, "clean"}
    assert audible(page) == ["noisy"]
    assert not any(paused for _, _, paused in before.values())
    page.locator("#featured .player").first.locator(".source", has_text="clean").click()
    assert audible(page) == ["clean"]
    places = {name: at for name, (at, _, _) in voices(page).items()}
    assert places["clean"] == pytest.approx(places["noisy"], abs=0.3)
    assert places["clean"] > 0.3
    assert page.locator("#featured .player").first.locator("audio:visible").count() == 1
    page.evaluate("players[0].heard.pause()")
    until(page, "[...players[0].voices.values()].every(voice => voice.paused)")
    page.evaluate("players[1].heard.play()")
    until(page, "players[1].heard.currentTime > 0")
    page.evaluate("players[0].heard.play()")
    until(page, "players[1].heard.paused && !players[0].heard.paused")  # only one player plays


@pytest.mark.slow  # on a busy machine playback falls behind
def test_voices_come_into_step(page: Any):
    page.evaluate("players[0].heard.play()")
    until(page, "players[0].heard.currentTime > 0.3")
    page.evaluate("players[0].voices.get('clean').currentTime -= 0.1")
    until(page, "players[0].heard.currentTime > 2.3")
    places = {name: at for name, (at, _, _) in voices(page).items()}
    assert abs(places["clean"] - places["noisy"]) < 0.08
    page.evaluate("players[0].voices.get('clean').currentTime = 0; players[0].choose('clean')")
    assert voices(page)["clean"][0] > 2  # one that lags is fetched when it is chosen


def test_click_into_a_spectrogram_goes_there(page: Any):
    until(page, "players[0].heard.duration > 0")
    picture = page.locator("#featured .picture").first
    picture.scroll_into_view_if_needed()
    picture.click()  # in its middle
    until(page, "players[0].heard.currentTime > 0")
    assert page.evaluate("players[0].heard.currentTime") == pytest.approx(SECONDS / 2, abs=0.1)
    until(page, "Math.abs(parseFloat(document.querySelector('.head').style.left) - 50) < 4")


@pytest.mark.parametrize("name", ["file 4", *FILES[-2:]])
def test_any_file_can_be_heard(page: Any, name: str):
    """Also one that is not in the page, with signs in its name that addresses have a use for."""
    page.locator(".filter input").fill(name.upper())
    (shown,) = [row for row in page.locator(".files tbody tr").all() if row.is_visible()]
    shown.locator("button").click()
    assert page.locator("#listen .now").text_content() == name
    assert page.locator("#listen .source:visible").count() == 4
    until(page, "players.at(-1).heard.currentTime > 0.2")
    assert audible(page, -1) == ["noisy"]
    assert page.evaluate("players.at(-1).heard.duration") == pytest.approx(SECONDS, abs=0.01)
    assert page.locator("#listen .fault").is_hidden()


def test_missing_file_is_reported(page: Any):
    linked = page.evaluate("FILES.findIndex(file => !file.sources.abl3.startsWith('data:'))")
    page.evaluate("number => { FILES[number].sources.abl3 = 'audio/nowhere.wav'; }", linked)
    page.locator(f'.files tbody tr[data-file="{linked}"] button').click()
    page.wait_for_selector("#listen .fault:not([hidden])")
    assert "abl3 cannot be played" in page.locator("#listen .fault").inner_text()
