"""The page by the keyboard, in both themes, in a narrow window, without motion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.train.ranking.page.browser.helpers import Opener, focused, in_chromium, listed, luminance
from tests.train.ranking.page.helpers import Page

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra: browser").expect
pytestmark = in_chromium


def test_bars_by_the_keyboard(view: Any, ranked: Page) -> None:
    view.locator('.bar[tabindex="0"]').focus()
    view.keyboard.press("Enter")
    assert listed(view) == [ranked.column("filename")[30]]
    view.keyboard.press("Escape")
    expect(view.locator("#status")).to_have_text("All 60 images")
    view.keyboard.press("End")
    view.keyboard.press("Shift+ArrowLeft")
    view.keyboard.press("Shift+ArrowLeft")
    last_three = view.locator('.bar[aria-selected="true"]').count()
    found = len(listed(view))
    assert 1 <= last_three <= 3
    assert set(listed(view)) == set(ranked.by("log_density", descending=True)[:found])


def test_everything_by_the_keyboard(view: Any, ranked: Page) -> None:
    order = ranked.by("log_density")
    view.get_by_role("button", name="Clear filters").evaluate("(button) => button.focus()")
    view.get_by_label("without a value (1)").focus()
    view.keyboard.press("Tab")
    assert focused(view) == order[0]
    view.keyboard.press("ArrowRight")
    assert focused(view) == order[1]
    columns = view.locator("#list .row").first.locator(".tile").count()
    view.keyboard.press("ArrowDown")
    assert focused(view) == order[1 + columns]
    view.keyboard.press("ArrowLeft")
    view.keyboard.press("ArrowLeft")
    assert focused(view) == order[columns - 1]  # the end of the row above
    view.keyboard.press("End")
    assert focused(view) == order[59]
    view.keyboard.press("Home")
    view.keyboard.press("Enter")
    expect(view.locator("#detail-title")).to_have_text(order[0])
    view.keyboard.press("ArrowRight")
    expect(view.locator("#detail-title")).to_have_text(order[1])
    expect(view.locator("#position")).to_have_text("2 of 60")
    view.keyboard.press("Escape")
    expect(view.locator("#detail")).to_be_hidden()
    assert focused(view) == order[0]
    view.get_by_role("tab", name="Gallery").focus()
    view.keyboard.press("ArrowRight")
    view.keyboard.press("Enter")
    expect(view.get_by_role("tab", name="Least and most typical")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_contrast(theme: str, opened: Opener, ranked: Page) -> None:
    view = opened(ranked.folder, color_scheme=theme)
    style = "(it) => { const s = getComputedStyle(it); return [s.color, s.backgroundColor]; }"
    ground = luminance(view.locator("body").evaluate(style)[1])
    assert (ground > 0.5) == (theme == "light")
    for part in ("h1", "#subtitle", "#status", ".name"):
        text = luminance(view.locator(part).first.evaluate(style)[0])
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5, part


def test_nothing_moves_by_itself(opened: Opener, ranked: Page) -> None:
    view = opened(ranked.folder, reduced_motion="reduce")
    view.locator(".bar").first.click()
    assert view.evaluate("document.getAnimations().length") == 0


def test_a_narrow_window_does_not_scroll_sideways(opened: Opener, ranked: Page) -> None:
    view = opened(ranked.folder, viewport={"width": 400, "height": 800})
    for name in ("Gallery", "Least and most typical", "Near-duplicates", "Table"):
        view.get_by_role("tab", name=name).click()
        view.locator("#list").scroll_into_view_if_needed()
        expect(view.locator("#list .item").first).to_be_visible()
        assert view.evaluate("document.documentElement.scrollWidth") <= 400, name
    view.get_by_role("tab", name="Gallery").click()
    view.locator("#list .tile").first.click()
    assert view.evaluate("document.querySelector('dialog').scrollWidth") <= 400
