"""The page in headless Chromium: what a person sees, filters, clicks and types."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jepa_train.ranking.page import write_page
from tests.train.ranking.page.helpers import HOSTILE, REASON, Page, small_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra: browser")
expect = playwright.expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SECONDS = 60  # patience on a busy machine
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.xdist_group("browser"),  # one browser for all
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    expect.set_options(timeout=1000 * SECONDS)
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * SECONDS)


class Opener:
    """Opens pages from disk, and collects what they complain about."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.pages: list[Any] = []

    def __call__(self, folder: Path, **settings: Any) -> Any:
        view = self.browser.new_page(**{"viewport": {"width": 1280, "height": 1300}, **settings})
        self.pages.append(view)
        view.set_default_timeout(1000 * SECONDS)
        view.on("console", lambda message: self.complaints.append(message.text))
        view.on("pageerror", lambda error: self.complaints.append(str(error)))
        view.goto((folder / "index.html").as_uri())
        return view


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


def listed(view: Any) -> list[str]:
    """File names of the images in the list, as far as they are drawn."""
    return list(
        view.evaluate("[...document.querySelectorAll('#list .item')].map((it) => DATA.filename[it.dataset.row])")
    )


def focused(view: Any) -> str:
    """File name of the image that has the focus."""
    return str(view.evaluate("DATA.filename[document.activeElement.dataset.row]"))


def plain(view: Any, name: str) -> str:
    return str(view.locator(name).inner_text())


def check_beginning(found: list[str], expected: list[str]) -> None:
    assert len(found) >= min(10, len(expected))
    assert found == expected[: len(found)]


def test_warnings_and_facts_stand_on_top_as_text(view: Any, ranked: Page) -> None:
    assert plain(view, "h1") == view.title() == "60 images, ranked by how typical they are"
    expect(view.locator("#subtitle")).to_have_text("Encoder vit_small<b> · 3 classes · 1 image has a missing value")
    expect(view.locator("#warnings li")).to_have_text(
        ["Scores follow complexity: <i>Spearman</i> with compressed_size is -0.83."]
    )
    view.locator("#facts summary").click()
    facts = plain(view, "#facts")
    for part in (
        "dimension\n7.25",
        "input size\n3, 224, 224",
        "pooling\nmean",
        "The first note.\nThe second note.",
        ", 0.5, … (64 in all)",
    ):
        assert part in facts
    assert view.evaluate("window.hacked") is None
    assert view.locator("main script, main b, main i").count() == 0


def test_least_typical_first_and_turned_round(view: Any, ranked: Page) -> None:
    check_beginning(listed(view), ranked.by("log_density"))
    expect(view.locator("#status")).to_have_text("All 60 images")
    view.get_by_role("button", name="Least typical first").click()
    check_beginning(listed(view), ranked.by("log_density", descending=True))
    view.get_by_label("Score", exact=True).select_option("mahalanobis")  # of which more is less typical
    check_beginning(listed(view), ranked.by("mahalanobis", descending=True))
    assert plain(view, "#order").startswith("Least typical first")
    view.get_by_label("Score", exact=True).select_option("compressed_size")
    check_beginning(listed(view), ranked.by("compressed_size"))
    assert plain(view, "#order").startswith("Smallest compressed size first")


def test_the_table_sorts_by_its_heads(view: Any, ranked: Page) -> None:
    view.get_by_role("tab", name="Table").click()
    head = view.get_by_role("columnheader", name="nearest distance")
    for descending, direction in ((False, "ascending"), (True, "descending")):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", direction)
        check_beginning(listed(view), ranked.by("nearest_distance", descending=descending))
        assert listed(view)[-1] != ranked.column("filename")[59]  # which has none
    view.get_by_role("columnheader", name="filename").get_by_role("button").click()
    check_beginning(listed(view)[:3], [f"cat/{HOSTILE[0]}", "cat/03.png", "cat/06.png"])
    row = view.get_by_role("row").filter(has_text="cat/03.png").first
    values = {name: ranked.column(name)[3] for name in ("log_density", "mahalanobis")}
    for value in values.values():
        assert f"{value:.5g}" in row.inner_text()


def test_text_class_and_range_filter_together(view: Any, ranked: Page) -> None:
    names, density = ranked.column("filename"), ranked.column("log_density")
    view.get_by_label("File name contains").fill("DOG/")
    expect(view.locator("#status")).to_have_text("20 of 60 images")
    view.get_by_label("File name contains").fill("")
    view.get_by_label("Class").select_option(label="tabby & co (20)")
    view.get_by_label("Score from").fill("-42.5")
    view.get_by_label("Score to").fill("-38")
    kept = {row for row in range(59) if -42.5 <= density[row] <= -38 and names[row].startswith("tabby")}
    assert 0 < len(kept) < 20
    expect(view.locator("#status")).to_have_text(f"{len(kept)} of 60 images")
    assert set(listed(view)) == {names[row] for row in kept}
    view.get_by_role("button", name="Clear filters").click()
    expect(view.locator("#status")).to_have_text("All 60 images")
    assert view.get_by_label("Score from").input_value() == ""
    view.get_by_label("File name contains").fill("100% sure?#")
    assert listed(view) == [f"dog/{HOSTILE[1]}"]
    view.get_by_label("File name contains").fill("no such name")
    expect(view.locator("#note")).to_have_text("No image matches. Clear the filters to see all.")


def test_missing_values_are_shown_with_their_reason(view: Any, ranked: Page) -> None:
    name = ranked.column("filename")[59]
    view.get_by_label("without a value (1)").check()
    assert listed(view) == [name]
    shown = view.locator("#list .tile")
    expect(shown).to_contain_text("none")
    expect(shown).to_contain_text("no picture")
    assert REASON in shown.get_attribute("aria-label")
    shown.click()
    expect(view.locator("#detail .flag")).to_have_text(REASON)


def test_bars_show_their_images_and_select_them(view: Any, ranked: Page) -> None:
    bars = view.locator(".bar")
    outlier = ranked.column("filename")[30]
    bars.first.hover()
    expect(view.locator("#preview p")).to_contain_text("1 image at -190.5")
    assert outlier in view.locator("#preview .tile").get_attribute("aria-label")
    box = view.locator("#bars").bounding_box()
    view.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 50)
    view.mouse.down()
    view.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50, steps=5)
    view.mouse.up()
    selected = view.locator('.bar[aria-selected="true"]')
    images = sum(int(re.match(r"\d+", bar.get_attribute("aria-label"))[0]) for bar in selected.all())
    assert 0 < images < 60
    expect(view.locator("#status")).to_have_text(f"{images} of 60 images")
    bars.first.click()
    assert listed(view) == [outlier]
    bars.first.click()
    expect(view.locator("#status")).to_have_text("All 60 images")


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


def test_a_click_shows_the_original_and_all_numbers(view: Any, ranked: Page) -> None:
    for row, name in enumerate(HOSTILE):
        whole = ranked.column("filename")[row]
        view.get_by_label("File name contains").fill(name.split("\n")[0])
        view.locator("#list .tile").click()
        image = view.locator("#detail img")
        expect(image).to_have_js_property("naturalWidth", 300)
        assert image.get_attribute("alt") == whole
        link = view.get_by_role("link", name="Open the original")
        opened = view.evaluate(
            "(address) => decodeURIComponent(new URL(address, location).pathname)", link.get_attribute("href")
        )
        assert Path(opened).resolve() == (ranked.folder.parent / "my photos 100%" / whole).resolve()
        numbers = plain(view, "#detail dl")
        for column in ("log_density", "mahalanobis", "percentile", "nearest_distance"):
            assert column.replace("_", " ") in numbers
        assert f"{ranked.column('log_density')[row]:.5g}" in numbers
        view.get_by_role("button", name="Close").click()
        expect(view.locator("#detail")).to_be_hidden()


def test_an_original_that_is_gone_is_said_to_be(view: Any, ranked: Page, opened: Opener) -> None:
    gone = ranked.folder.parent / "my photos 100%" / "cat" / "06.png"
    content = gone.read_bytes()
    gone.unlink()
    view.get_by_label("File name contains").fill("06.png")
    view.locator("#list .tile").click()
    expect(view.locator("figcaption")).to_contain_text("The original is not at its place")
    expect(view.locator("figure .thumb")).to_be_visible()
    gone.write_bytes(content)
    assert len(opened.complaints) == 1
    assert "ERR_FILE_NOT_FOUND" in opened.complaints.pop()


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


def test_extremes_stand_side_by_side_for_each_class(view: Any, ranked: Page) -> None:
    view.get_by_role("tab", name="Least and most typical").click()
    rows = view.locator("#list .row")
    assert [row.inner_text().split("\n")[0] for row in rows.all()] == ["cat", "dog", "tabby & co"]
    for label, row in zip(("cat", "dog", "tabby & co"), rows.all(), strict=True):
        order = [name for name in ranked.by("log_density")[:59] if name.startswith(f"{label}/")]
        ends = [side.locator(".tile") for side in (row.locator(".least"), row.locator(".most"))]
        least, most = ([tile.get_attribute("aria-label") for tile in side.all()] for side in ends)
        assert len(least) == len(most) > 3
        assert all(name in text for name, text in zip(order, least, strict=False))
        assert all(name in text for name, text in zip(order[-len(most) :], most, strict=True))


def test_near_duplicates_come_first_each_pair_once(view: Any, ranked: Page) -> None:
    names = ranked.column("filename")
    view.get_by_role("tab", name="Near-duplicates").click()
    pairs = view.locator(".pair")
    expect(pairs.nth(0)).to_contain_text("the same picture")
    expect(pairs.nth(0)).to_contain_text("different classes")
    for row in (10, 20):
        expect(pairs.nth(0)).to_contain_text(names[row])
    expect(pairs.nth(1)).to_contain_text("reference/elsewhere.png")
    expect(pairs.nth(1)).to_contain_text("1 of 255 apart")
    expect(view.locator("#note")).to_contain_text("2 pairs differ by less than 8 of 255 grey levels")
    together = [text for text in pairs.all_inner_texts() if names[10] in text and names[20] in text]
    assert len(together) == 1


def test_pairs_without_thumbnails_are_compared_by_their_embeddings(opened: Opener, tmp_path: Path) -> None:
    page = small_page(tmp_path, without=["nearest_difference"])
    view = opened(page.folder)
    view.get_by_role("tab", name="Near-duplicates").click()
    pairs = view.locator(".pair")
    expect(pairs.nth(0)).to_contain_text("the same to the encoder")
    typical = np.median([distance for distance in page.column("nearest_distance") if distance is not None])
    expect(pairs.nth(1)).to_contain_text(f"{100 * 0.05 / typical:.2g} % of the typical distance")
    expect(view.locator("#note")).to_contain_text("2 pairs are closer than a tenth of the typical distance")


def test_the_list_is_saved_as_it_stands(view: Any, ranked: Page) -> None:
    view.get_by_label("File name contains").fill("dog")
    with view.expect_download() as download:
        view.get_by_role("button", name="Save this list").click()
    saved = Path(download.value.path()).read_text()
    assert saved == "".join(f"{name}\n" for name in ranked.by("log_density") if "dog" in name)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it, of what a browser computed."""
    channels = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


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


def test_only_what_is_in_sight_is_drawn(opened: Opener, tmp_path: Path) -> None:
    count = 5000
    table = pa.table({"filename": [f"{row}.png" for row in range(count)], "log_density": np.arange(float(count))})
    write_page(tmp_path, table, thumbnails=[None] * count, images=None, summary={})
    view = opened(tmp_path)
    for name in ("Gallery", "Table"):
        view.get_by_role("tab", name=name).click()
        expect(view.get_by_role("grid")).to_have_attribute("aria-rowcount", re.compile(r"\d{3,}"))
        view.locator("#list .item").first.focus()
        view.keyboard.press("End")
        assert focused(view) == "4999.png"
        assert 10 < view.locator("#list .item").count() < 250
        view.keyboard.press("Home")
        assert focused(view) == "0.png"


def test_images_without_classes_originals_or_summary(opened: Opener, tmp_path: Path) -> None:
    table = pa.table({"filename": ["a.png", "b.png"], "embedding_log_density": [float("-inf"), 2.0]})
    write_page(tmp_path, table, thumbnails=[None, None], images=None, summary={})
    view = opened(tmp_path)
    expect(view.get_by_label("Class")).to_be_hidden()
    expect(view.locator("#warnings")).to_be_hidden()
    assert listed(view) == ["a.png", "b.png"]
    view.get_by_role("tab", name="Least and most typical").click()
    expect(view.locator("#list")).to_contain_text("All images")
    view.locator("#list .tile").first.click()
    assert view.locator("#detail img, #detail a").count() == 0
    view.keyboard.press("Escape")
    view.get_by_role("tab", name="Near-duplicates").click()
    expect(view.locator("#note")).to_have_text("This ranking has no nearest images.")


@pytest.mark.parametrize("names", [[], ["a.png"]])
def test_nothing_to_rank_is_said(names: list[str], opened: Opener, tmp_path: Path) -> None:
    missing = pa.array([None] * len(names), pa.float64())
    table = pa.table({"filename": pa.array(names, pa.string()), "log_density": missing})
    write_page(tmp_path, table, thumbnails=[None] * len(names), images=None, summary={"warnings": ["All is lost."]})
    view = opened(tmp_path)
    expect(view.locator("#subtitle")).to_have_text("No image has a value, so there is nothing to rank.")
    expect(view.locator("#warnings")).to_contain_text("All is lost.")
    expect(view.locator("main")).to_be_hidden()


def test_a_page_without_its_folder_says_so(opened: Opener, ranked: Page, tmp_path: Path) -> None:
    shutil.copy(ranked.folder / "index.html", tmp_path)
    view = opened(tmp_path)
    expect(view.locator("#subtitle")).to_have_text("This page needs JavaScript and the folder “page” beside it.")
    assert all("ERR_FILE_NOT_FOUND" in complaint for complaint in opened.complaints)
    opened.complaints.clear()
