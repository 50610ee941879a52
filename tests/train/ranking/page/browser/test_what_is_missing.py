"""The page of a ranking that lacks something: values, pictures, classes, images; and of very many images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jepa_train.ranking.page import write_page
from tests.train.ranking.page.browser.helpers import Opener, focused, in_chromium, listed
from tests.train.ranking.page.helpers import REASON, Page, small_page

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra: browser").expect
pytestmark = in_chromium


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


def test_pairs_without_thumbnails_are_compared_by_their_embeddings(opened: Opener, tmp_path: Path) -> None:
    page = small_page(tmp_path, without=["nearest_difference"])
    view = opened(page.folder)
    view.get_by_role("tab", name="Near-duplicates").click()
    pairs = view.locator(".pair")
    expect(pairs.nth(0)).to_contain_text("the same to the encoder")
    typical = np.median([distance for distance in page.column("nearest_distance") if distance is not None])
    expect(pairs.nth(1)).to_contain_text(f"{100 * 0.05 / typical:.2g} % of the typical distance")
    expect(view.locator("#note")).to_contain_text("2 pairs are closer than a tenth of the typical distance")


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
