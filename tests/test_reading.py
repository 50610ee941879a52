"""The benchmark of reading: the page of tags has what the kept curves say."""

from __future__ import annotations

import re
from pathlib import Path

import reading
from keep import curves

from jepa_monitor.measured import MEASURED
from jepa_monitor.tags import TAGS
from jepa_train.pictures import MEANINGS

ROOT = Path(__file__).resolve().parents[1]


def test_the_module_has_what_the_kept_curves_say() -> None:
    assert reading.measured(curves.kept(ROOT / "docs" / "selection")) == MEASURED


def test_the_pages_have_the_tables_of_the_kept_curves() -> None:
    assert reading.tables(MEASURED) in (ROOT / "docs" / "tags.md").read_text()
    assert reading.excerpt(MEASURED) in (ROOT / "docs" / "curves.md").read_text()


def test_the_page_of_tags_has_every_tag_of_the_monitor_and_of_training() -> None:
    page = (ROOT / "docs" / "tags.md").read_text()
    names = [f"{tag.name}*" if tag.is_beginning else tag.name for tag in TAGS] + list(MEANINGS)
    assert len(names) > 70
    assert [name for name in names if page.count(f"\n| `{name}` |") != 1] == []


def test_the_share_of_variance_tells_a_collapse_from_a_scale_and_the_sliced_statistic_does_not() -> None:
    def ends(cell: str) -> list[float]:
        return [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", cell)]

    variance, sliced = MEASURED["gaussianity/variance_share"], MEASURED["gaussianity/sliced_ep_ratio"]
    assert max(ends(variance.collapsing)) < min(ends(variance.off_scale) + ends(variance.healthy)) / 10
    assert max(ends(sliced.off_scale)) > 0.9 * min(ends(sliced.collapsing))
