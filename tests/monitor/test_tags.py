"""Names of tags, and the tags that the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_monitor import tag_groups, tags

DOCS = Path(__file__).resolve().parents[2] / "docs"
GROUPS = "density|gaussianity|jacobian|knn|linear_probe|features|monitor|scores|null"


def test_no_tag_has_a_character_that_a_regular_expression_reads() -> None:
    # TensorBoard finds a tag with parentheses and draws no line of it
    names = [tag.name for tag in tags.TAGS] + [*tag_groups.USUAL_TAGS, *tags.NULLS]
    assert [name for name in names if re.escape(name) != name] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_each_tag_that_the_documentation_names_has_a_record(page: Path) -> None:
    text = page.read_text().split("## The pictures")[0]
    for name in {*re.findall(rf"`((?:{GROUPS})/[^`\s]+)`", text)} - {"density/story"}:  # a picture
        assert tags.meaning_of(name), name


@pytest.mark.parametrize(
    ("page", "groups"), [("evaluation", "knn|linear_probe|features"), ("monitor", "monitor/alarm")]
)
def test_the_documentation_names_each_tag_of_a_group(page: str, groups: str) -> None:
    text = (DOCS / f"{page}.md").read_text()
    of_groups = [tag.name for tag in tags.TAGS if re.match(f"({groups})[/_]", tag.name)]
    assert len(of_groups) >= 3
    assert [name for name in of_groups if f"`{name}" not in text] == []
