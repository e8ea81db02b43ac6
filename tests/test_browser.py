"""The page in a real browser: it asks the network for nothing, sorts, fits and can be read."""

from __future__ import annotations

from typing import Any

import pytest

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
