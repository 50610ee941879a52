"""The columns that a table has, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.columns import COLUMNS, wanted_columns


def test_all_columns_are_wanted_by_default() -> None:
    wanted = wanted_columns(None)
    assert wanted.names == tuple(column.name for column in COLUMNS)
    assert wanted.names[0] == "filename"
    assert wanted.names[-1] == "reason"
    assert not wanted.explicit


def test_some_need_no_volume() -> None:
    wanted = wanted_columns([" mahalanobis", "knn_distance"])
    assert wanted.names == ("filename", "class", "mahalanobis", "knn_distance", "reason")
    assert wanted.needs("reference")
    assert not wanted.needs("volume", "exact volume", "neighbours")
    assert wanted_columns(["jepa_score"]).needs("exact volume")
    assert "nearest_distance" in wanted_columns(["nearest_filename"]).names


def test_a_name_that_is_none_is_asked_back() -> None:
    with pytest.raises(ConfigurationError, match=r"no score 'log_volum' \(is log_volume meant\?\)"):
        wanted_columns(["log_volum"])


def test_a_column_says_in_words_what_is_typical() -> None:
    for column in COLUMNS:
        said = {"higher = more typical": 1, "larger = less typical": -1}
        assert all(column.typical == typical for words, typical in said.items() if words in column.meaning), column.name
        assert column.is_number or not column.typical


def test_the_page_of_the_documentation_has_the_columns() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "ranking" / "files.md").read_text()
    rows = "\n".join(f"| `{column.name}` | {column.meaning} |" for column in COLUMNS)
    assert f"\n{rows}\n\n" in page, rows
