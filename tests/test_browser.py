"""The page in a real browser: it loads nothing, sorts, fits, can be read, and its players play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pages import FIRST, NAMES, PANEL, SECONDS, heard, until

pytestmark = pytest.mark.browser


def test_everything_is_there_and_nothing_is_executed(page: Any):
    assert page.title() == "Comparison on a corpus & <more>"
    assert page.locator("#tables tbody").first.locator("tr").count() == 3
    assert "<script>evil()</script>" in page.locator("#tables").inner_text()
    assert page.locator("#plots svg").count() >= 5
    assert page.locator("#featured article").count() == 3
    assert page.locator(".picture img").count() == 12
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert min(sizes) > 100
    assert not page.evaluate("Boolean(document.querySelector('img[src=x]'))")
    # Fewer than all files are in the page; the others are played from where they lie.
    sources = page.evaluate("FILES.flatMap(file => Object.values(file.sources))")
    assert len(sources) == 48
    assert 12 <= sum(source.startswith("data:audio/wav") for source in sources) < 48


def column(page: Any, table: str, number: int) -> list[str]:
    cells = page.locator(f"{table} tbody tr > :nth-child({number})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def test_tables_sort_both_ways_with_what_is_missing_last(page: Any):
    files = "table.files"
    noisy = page.locator(f"{files} thead button", has_text="noisy")
    noisy.click()
    values = column(page, files, 2)
    assert values[-1] == ""
    assert values[:-1] == sorted(values[:-1], reverse=True)
    noisy.press("Enter")
    values = column(page, files, 2)
    assert values[-1] == ""
    assert values[:-1] == sorted(values[:-1])
    assert page.locator(f"{files} th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.locator(f"{files} thead button", has_text="file").click()
    names = column(page, files, 1)
    assert names.index("file 2") < names.index("file 8")


@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_a_page_is_as_wide_as_the_screen(page: Any, width: int):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def luminance(colour: str) -> float:
    channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(page: Any, scheme: str):
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), in text and in the plots' series."""
    page.emulate_media(color_scheme=scheme)
    colour = "selector => getComputedStyle(document.querySelector(selector)).color"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = scheme == "dark"
    assert (luminance(paper) < 0.1) == dark
    found = [page.evaluate(colour, selector) for selector in ("h1", ".caption", "nav a", "td")]
    found += page.evaluate(
        """[...Array(8).keys()].map(number => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = `var(--series-${number})`;
            return getComputedStyle(probe).color;
        })"""
    )
    for each in found:
        light, deep = sorted([luminance(each), luminance(paper)], reverse=True)
        assert (light + 0.05) / (deep + 0.05) >= 4.5, each
    fill = "getComputedStyle(document.querySelector('#plots svg text')).fill"
    assert abs(luminance(page.evaluate(fill)) - luminance(found[0])) < 0.01


# Players


def test_switching_while_playing_goes_on_at_the_same_place(page: Any):
    page.locator(f"{FIRST} .play").click()
    until(page, "players[0].position > 0.4")
    before = {name: (at, mute, paused) for name, at, mute, paused in heard(page, FIRST)}
    assert before.keys() == {*NAMES, "clean"}
    assert [name for name, (_, mute, _) in before.items() if not mute] == ["noisy"]
    assert not any(paused for _, _, paused in before.values())
    page.locator(f"{FIRST} .source", has_text="clean").click()
    voices = heard(page, FIRST)
    assert [name for name, _, mute, _ in voices if not mute] == ["clean"]
    places = [at for _, at, _, _ in voices]
    assert max(places) - min(places) < 0.3
    assert min(places) > 0.3
    page.locator(f"{FIRST} .play").click()
    assert all(paused for _, _, _, paused in heard(page, FIRST))
    stopped = page.evaluate("players[0].position")
    page.locator(f"{FIRST} .play").click()
    assert abs(heard(page, FIRST)[0][1] - stopped) < 0.3


def test_a_version_that_lags_is_fetched_when_it_is_chosen(page: Any):
    page.locator(f"{FIRST} .play").click()
    until(page, "players[0].position > 0.6")
    page.evaluate("players[0].voices.get('3').currentTime = 0; players[0].choose('3')")
    places = {name: at for name, at, _, _ in heard(page, FIRST)}
    assert places["clean"] == pytest.approx(places["noisy"], abs=0.3)


def test_only_one_player_plays(page: Any):
    buttons = page.locator("#featured .play")
    buttons.nth(0).click()
    until(page, "players[0].position > 0.1")
    buttons.nth(1).click()
    until(page, "players[1].position > 0.1")
    assert page.evaluate("players.map(each => each.playing)") == [False, True, False, False]
    assert [buttons.nth(n).inner_text().strip() for n in (0, 1)] == ["Play", "Pause"]


def test_the_end_is_the_beginning_again(page: Any):
    page.evaluate("players[0].seek(2.8)")
    page.locator(f"{FIRST} .play").click()
    until(page, "!players[0].playing")
    assert page.evaluate("players[0].position") == 0
    page.locator(f"{FIRST} .loop input").check()
    page.evaluate("players[0].seek(2.8)")
    page.locator(f"{FIRST} .play").click()
    until(page, "players[0].playing && players[0].position < 1")
    until(page, "players[0].position > 0.1")


def test_by_keyboard(page: Any):
    # Outside of a player, keys are the browser's.
    page.keyboard.press("2")
    page.keyboard.press(" ")
    assert page.evaluate("players.map(each => each.playing)") == [False] * 4
    assert page.evaluate("players[0].heard") == "0"
    until(page, "scrollY > 100")
    # All that a player has can be reached and used.
    page.locator(f"{FIRST} .play").focus()
    page.keyboard.press(" ")
    until(page, "players[0].position > 0.1")
    page.keyboard.press("2")
    assert [name for name, _, mute, _ in heard(page, FIRST) if not mute] == ["abl3"]
    page.keyboard.press("Tab")
    page.keyboard.press(" ")
    assert not page.evaluate("players[0].playing")
    before = page.evaluate("players[0].position")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("players[0].position") == pytest.approx(before + 1, abs=0.01)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("players[0].position") == pytest.approx(before, abs=0.01)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("players[0].heard") == "2"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.player') === players[1].root")


def test_an_empty_player_plays_nothing(page: Any):
    page.locator(f"{PANEL} .loop input").focus()
    page.keyboard.press("1")
    page.evaluate("players.at(-1).toggle()")
    assert not page.evaluate("players.at(-1).playing")
    assert page.locator(f"{PANEL} .fault").is_hidden()


def test_a_shorter_version_is_silent_at_its_end(page: Any):
    """It is not begun again, and playing goes on by the others."""
    page.evaluate("players[0].play()")
    until(page, "[...players[0].voices.values()].every(voice => voice.duration > 0)")
    page.evaluate("""Object.defineProperty(
        players[0].voices.get('3'), 'duration', { get: () => 1.0 })""")
    page.evaluate("players[0].seek(1.5); players[0].voices.get('3').pause()")
    page.evaluate("players[0].choose('3')")
    until(page, "players[0].position > 1.8")
    places = {name: (at, paused) for name, at, _, paused in heard(page, FIRST)}
    assert places["clean"][1]
    assert places["noisy"][0] > 1.7
    page.evaluate("players[0].choose('0')")
    assert [name for name, _, mute, _ in heard(page, FIRST) if not mute] == ["noisy"]


def test_versions_come_into_step(page: Any):
    page.evaluate("players[0].play()")
    until(page, "players[0].position > 0.3")
    page.evaluate("players[0].voices.get('3').currentTime -= 0.1")
    until(page, "players[0].position > 2.3")
    places = {name: at for name, at, _, _ in heard(page, FIRST)}
    assert abs(places["clean"] - places["noisy"]) < 0.08


def test_a_click_into_a_spectrogram_goes_there(page: Any):
    picture = page.locator(f"{FIRST} .picture").first
    picture.scroll_into_view_if_needed()
    picture.click()  # in its middle
    assert page.evaluate("players[0].position") == pytest.approx(SECONDS / 2, abs=0.1)
    page.locator(f"{FIRST} .seek").fill("0.25")
    assert page.evaluate("players[0].position") == pytest.approx(SECONDS / 4, abs=0.01)


@pytest.mark.parametrize("name", ["file 4", '"><img src=x onerror=evil()>', "\\udcff", "a\nb"])
def test_any_file_can_be_heard(page: Any, name: str):
    """Also one that is not in the page, with signs in its name that addresses have a use for."""
    page.locator(".filter input").fill(name.upper().partition("\n")[2] or name.upper())
    (shown,) = [row for row in page.locator(".files tbody tr").all() if row.is_visible()]
    shown.locator(".choose").click()
    assert page.locator("#listen .now").text_content() == name
    assert page.locator(f"{PANEL} .source:visible").count() == 4
    until(page, "players.at(-1).position > 0.2")
    assert len(heard(page, PANEL)) == 4
    assert page.evaluate("players.at(-1).seconds") == pytest.approx(SECONDS, abs=0.01)
    assert page.locator(f"{PANEL} .fault").is_hidden()


def test_a_file_that_has_gone_is_said_to_be(page: Any, page_file: Path):
    linked = page.evaluate("FILES.findIndex(file => !file.sources['1'].startsWith('data:'))")
    page.evaluate("number => { FILES[number].sources['1'] = 'audio/nowhere.wav'; }", linked)
    page.locator(f'.files tbody tr[data-file="{linked}"] .choose').click()
    page.wait_for_selector(f"{PANEL} .fault:not([hidden])")
    assert "abl3 cannot be played" in page.locator(f"{PANEL} .fault").inner_text()
