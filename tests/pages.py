"""A real browser, for the tests of the pages."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

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
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", *media]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
