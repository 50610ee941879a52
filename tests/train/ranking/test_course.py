"""Arguments of a user are read to a course: times, references, and which stages there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.course import Course, parse_budget
from tests.train.ranking.tiny import pictures, rank_quietly

PLAIN = {"reference": None, "estimator": "auto", "budget": None, "shard": None, "stage": "all", "seed": 0}


@pytest.mark.parametrize(
    ("settings", "compares", "ends_with_table"),
    [
        ({"scores": None}, True, True),
        ({"scores": "knn_distance"}, True, True),
        ({"scores": "compressed_size"}, False, True),
        ({"scores": ["nearest_distance"], "shard": "2/3"}, False, False),
        ({"scores": "compressed_size", "stage": "reference"}, True, False),
    ],
)
def test_columns_and_stage_decide_which_stages_there_are(
    settings: dict[str, Any], compares: bool, ends_with_table: bool
) -> None:
    course = Course.of(**{**PLAIN, **settings})
    assert (course.compares, course.ends_with_table) == (compares, ends_with_table)


def test_budgets_are_times() -> None:
    assert [parse_budget(text) for text in ("90s", "30m", "2h", "1h30m", "0.5m")] == [90, 1800, 7200, 5400, 30]
    for text in ("30", "m", "", "1x", "-3m"):
        with pytest.raises(ConfigurationError, match="--budget"):
            parse_budget(text)


@pytest.mark.filterwarnings("ignore:Skipped")
def test_a_reference_that_is_not_there_says_what_to_give(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "ranked", scores="compressed_size")
    for named in (tmp_path / "ranked", tmp_path / "ranked" / "reference.pt"):
        with pytest.raises(ConfigurationError, match=r"ranking in .*ranked has no reference.pt.* --stage reference\.$"):
            rank_quietly(photos, tmp_path / "other", reference=named)
    with pytest.raises(ConfigurationError, match=r"there is no --reference .*nowhere: give a folder of typical"):
        rank_quietly(photos, tmp_path / "other", reference=tmp_path / "nowhere")
    rank_quietly(photos, tmp_path / "ranked", stage="reference")  # what the sentence says to do
    rank_quietly(photos, tmp_path / "other", reference=tmp_path / "ranked", scores="mahalanobis")
    clean = pictures(tmp_path / "clean", 14)
    (clean / "manifest.json").write_text("[]")  # of something else
    rank_quietly(photos, tmp_path / "by_clean", reference=clean, scores="mahalanobis")
