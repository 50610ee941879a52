"""The page in headless Chromium: what a person sees, filters, clicks and types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.train.ranking.page.browser.helpers import check_beginning, in_chromium, listed, plain
from tests.train.ranking.page.helpers import HOSTILE, Page

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra: browser").expect
pytestmark = in_chromium


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


def test_the_list_is_saved_as_it_stands(view: Any, ranked: Page) -> None:
    view.get_by_label("File name contains").fill("dog")
    with view.expect_download() as download:
        view.get_by_role("button", name="Save this list").click()
    saved = Path(download.value.path()).read_text()
    assert saved == "".join(f"{name}\n" for name in ranked.by("log_density") if "dog" in name)
