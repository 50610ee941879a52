"""The benchmark of reading: the page of tags has what the kept curves say."""

from __future__ import annotations

import re
from pathlib import Path

import reading
from keep import curves

from jepa_monitor.measured import MEASURED

ROOT = Path(__file__).resolve().parents[1]


def test_the_module_has_what_the_kept_curves_say() -> None:
    assert reading.measured(curves.kept(ROOT / "docs" / "selection")) == MEASURED


def test_the_page_has_the_table_and_the_tags_of_training() -> None:
    page = (ROOT / "docs" / "monitor.md").read_text()
    assert reading.table(MEASURED) in page
    assert "| `train/loss` |" in reading.table(MEASURED)


def test_the_share_of_variance_tells_a_collapse_from_a_scale_and_the_sliced_statistic_does_not() -> None:
    def ends(cell: str) -> list[float]:
        return [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", cell)]

    variance, sliced = MEASURED["gaussianity/variance_share"], MEASURED["gaussianity/sliced_ep_ratio"]
    assert max(ends(variance.collapsing)) < min(ends(variance.off_scale) + ends(variance.healthy)) / 10
    assert max(ends(sliced.off_scale)) > 0.9 * min(ends(sliced.collapsing))
