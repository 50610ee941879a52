"""One browser for all tests, and pages opened in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.train.ranking.page.browser.helpers import CHROMIUM, FLAGS, SECONDS, Opener
from tests.train.ranking.page.helpers import Page


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import expect, sync_playwright  # which may not be there: then no test asks for it

    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * SECONDS)


@pytest.fixture
def opened(browser: Any) -> Iterator[Opener]:
    """Opens pages that neither fail nor write to the console."""
    opener = Opener(browser)
    yield opener
    for view in opener.pages:
        view.close()
    assert not opener.complaints


@pytest.fixture
def view(opened: Opener, ranked: Page) -> Any:
    """The small page, opened."""
    return opened(ranked.folder)
