"""Values that tags had in runs: each of a tag that there is, in three cells."""

from __future__ import annotations

from jepa_monitor.measured import MEASURED, UNKNOWN
from jepa_monitor.tags import meaning_of


def test_each_value_is_of_a_tag_and_has_three_cells() -> None:
    assert UNKNOWN.cells == "- | - | -"
    for tag, found in MEASURED.items():
        assert tag.startswith("train/") or meaning_of(tag)
        assert len(found.cells.split(" | ")) == 3
