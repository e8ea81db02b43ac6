"""The page to try networks on, in a real browser, with a real recording."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from page_server import Served
from recordings import sound
from test_browser import luminance

from enhance import load

pytestmark = pytest.mark.browser
UPLOAD = "input[type=file]"
SHOWN = ".results .scale"


@pytest.fixture(scope="module")
def recording(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels at 24 kHz of a noisy sentence, in 24 bits."""
    noisy = sorted((tiny_corpus / "test" / "noisy").iterdir())[0]
    x, rate = sf.read(noisy)
    path = tmp_path_factory.mktemp("recording") / "a sentence.wav"
    sf.write(path, np.stack([x, 0.5 * x[::-1]], 1), 24000 if rate == 16000 else rate, "PCM_24")
    return path


@pytest.fixture
def tab(browser: Any, served: Served) -> Iterator[Any]:
    """The page, open. Nobody but its server may be asked for anything, and nothing may go wrong."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["microphone"]
    )
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    asked: list[str] = []
    tab.faults = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("dialog", lambda dialog: tab.faults.append(dialog.message))
    tab.on(
        "console",
        lambda said: tab.faults.append(said.text) if said.type == "error" else None,
    )
    # What would go elsewhere is stopped as well as seen.
    own = (served.address, f"blob:{served.address}", "data:")
    context.route(lambda url: not url.startswith(own), lambda route: route.abort())
    tab.goto(served.address)
    tab.locator("#enhance").wait_for()
    yield tab
    context.close()
    assert not [url for url in asked if not url.startswith(own)]
    assert tab.faults == []


def enhance(tab: Any, file: Path | dict[str, Any]) -> None:
    """Upload a file, and press the button."""
    tab.locator(UPLOAD).set_input_files(file)
    tab.get_by_label("Clear").wait_for()
    tab.locator("#enhance").click()


def durations(tab: Any) -> list[float]:
    """Of all players, once they know."""
    tab.wait_for_function(
        "[...document.querySelectorAll('audio.sound')].every(each => each.duration > 0)"
    )
    return tab.evaluate("[...document.querySelectorAll('audio.sound')].map(x => x.duration)")


def test_a_recording_is_enhanced_heard_seen_and_downloaded(
    tab: Any, served: Served, recording: Path
):
    assert "149,240 parameters, trained for 3 steps" in tab.locator(".intro").inner_text()
    assert tab.get_by_label("small", exact=True).is_checked()
    tab.get_by_label("other", exact=True).check()
    enhance(tab, recording)
    tab.wait_for_selector(SHOWN)
    x, rate = sf.read(recording, always_2d=True)
    assert durations(tab) == pytest.approx([len(x) / rate] * 5, abs=1e-3)
    titles = tab.locator(".results figcaption").all_inner_texts()
    assert titles == ["Noisy", "Enhanced", "Removed noise", "Enhanced", "Removed noise"]
    tab.wait_for_function("[...document.querySelectorAll('.picture img')].every(x => x.complete)")
    sizes = tab.evaluate(
        "[...document.querySelectorAll('.picture img')].map(x => [x.naturalWidth, x.naturalHeight])"
    )
    assert len(sizes) == 5
    assert len({tuple(size) for size in sizes}) == 1
    assert sizes[0][0] > 100
    facts = tab.locator(".results").inner_text()
    assert f"{len(x) / rate:.2f} s, {rate:,} Hz, 2 channels, WAV PCM_24" in facts
    assert facts.count("real-time factor") == 2

    heard = {}
    for number, name in enumerate(["noisy", "enhanced", "removed", "enhanced 2", "removed 2"]):
        with tab.expect_download() as coming:
            tab.locator(".results .download").nth(number).click()
        assert coming.value.suggested_filename.startswith("a sentence ")
        with open(coming.value.path(), "rb") as file:
            content = io.BytesIO(file.read())
        assert sf.info(content).subtype == "PCM_24"
        content.seek(0)
        heard[name], got = sf.read(content, always_2d=True)
        assert got == rate
    for run, enhanced in (("small", "enhanced"), ("other", "enhanced 2")):
        expected = load(served.folder.parents[1] / run)(x.T.astype(np.float32), rate).T
        assert heard[enhanced] == pytest.approx(expected, abs=2**-22)
    assert heard["noisy"] == pytest.approx(x, abs=2**-22)
    assert heard["noisy"] - heard["enhanced"] == pytest.approx(heard["removed"], abs=2**-21)


def test_versions_go_on_where_the_other_was(tab: Any, recording: Path):
    enhance(tab, recording)
    tab.wait_for_selector(SHOWN)
    (whole, *_) = durations(tab)
    tab.locator(".picture").nth(1).click()  # in its middle
    places = "[...document.querySelectorAll('audio.sound')].map(x => [x.currentTime, x.paused])"
    assert tab.evaluate(places)[1][0] == pytest.approx(whole / 2, abs=0.1)
    tab.evaluate("document.querySelectorAll('audio.sound')[1].play()")
    tab.wait_for_function(
        f"document.querySelectorAll('audio.sound')[1].currentTime > {whole / 2} + 0.3"
    )
    tab.evaluate("document.querySelectorAll('audio.sound')[0].play()")
    tab.wait_for_function("document.querySelectorAll('audio.sound')[1].paused")
    found = tab.evaluate(places)
    assert [paused for _, paused in found] == [False, True, True]
    assert found[0][0] == pytest.approx(found[1][0], abs=0.3)


def test_it_fits_a_phone_and_can_be_read_by_night(tab: Any, recording: Path):
    enhance(tab, recording)
    tab.wait_for_selector(SHOWN)
    for width in (390, 360, 800, 1280):
        tab.set_viewport_size({"width": width, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
    colour = "selector => getComputedStyle(document.querySelector(selector)).color"
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(
            f"document.body.classList.contains('dark') === {str(scheme == 'dark').lower()}"
        )
        # Colours change slowly.
        tab.wait_for_function("document.getAnimations().every(x => x.playState !== 'running')")
        paper = luminance(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (paper < 0.1) == (scheme == "dark")
        for selector in (".intro h1", ".intro li", ".limits", ".facts", ".ticks", ".download"):
            ink = luminance(tab.evaluate(colour, selector))
            light, deep = max(ink, paper), min(ink, paper)
            assert (light + 0.05) / (deep + 0.05) >= 4.5, (scheme, selector)


def test_a_broken_file_is_refused_with_a_reason(tab: Any, tmp_path: Path):
    path = tmp_path / "not audio.wav"
    path.write_bytes(b"no audio at all")
    enhance(tab, path)
    fault = tab.locator(".fault")
    fault.wait_for()
    assert fault.inner_text().startswith("not audio.wav: cannot be decoded")
    assert "What can be read: wav, flac" in fault.inner_text()
    assert tab.locator(".results").count() == 0
    # The page's own preview of it fails as well.
    tab.faults[:] = [each for each in tab.faults if "Waveform" not in each]


def test_a_file_name_is_text(tab: Any, tmp_path: Path):
    content = io.BytesIO()
    sf.write(content, sound(0.5), 16000, format="WAV")
    name = '<img src=x onerror=alert(1)> ${alert(2)} {{value}} ".wav'
    enhance(tab, {"name": name, "mimeType": "audio/wav", "buffer": content.getvalue()})
    tab.wait_for_selector(SHOWN)
    heading = tab.locator(".results h2").inner_text()
    assert "img src" in heading
    assert "alert" in heading
    assert tab.locator("img[src=x]").count() == 0


def test_only_a_recording_that_has_arrived_can_be_enhanced(tab: Any, recording: Path):
    button = tab.locator("#enhance")
    assert button.is_disabled()
    tab.locator(UPLOAD).set_input_files(recording)
    tab.locator("#enhance:enabled").wait_for()
    tab.get_by_label("Clear").click()
    tab.locator("#enhance:disabled").wait_for()


def test_a_microphone_can_be_used(tab: Any, served: Served):
    before = set(served.folder.glob("uploads/*/*"))
    tab.get_by_label("Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(1500)
    tab.locator("#recording button:visible", has_text="Stop").click()
    tab.get_by_label("Play", exact=True).wait_for()
    tab.locator("#enhance").click()
    tab.wait_for_selector(SHOWN)
    (made,) = set(served.folder.glob("uploads/*/*")) - before
    assert made.suffix == ".wav"
    assert durations(tab)[0] > 0.5


def test_what_is_stopped_ends(tab: Any, served: Served, tmp_path: Path):
    before = set(served.results)
    long = tmp_path / "long.wav"
    sf.write(long, np.tile(sound(1.0), 500), 16000)
    enhance(tab, long)
    tab.locator("progress").wait_for()
    tab.locator("#stop").click()
    tab.get_by_text("Stopped.").wait_for()
    for _ in range(200):
        if set(served.results) == before:
            break
        tab.wait_for_timeout(25)
    assert set(served.results) == before
    assert tab.locator(".results").count() == 0
