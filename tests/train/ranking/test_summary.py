"""The summary says what was ranked by what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train.ranking.tiny import Constant, encoder_of, pictures, rank_quietly


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_it_has_all_that_results_depend_on(photos: Path, tmp_path: Path) -> None:
    table = rank_quietly(photos, tmp_path / "ranked")
    found = summary(tmp_path / "ranked")
    assert found["images"]["count"] == 71
    assert found["images"]["without_reason"] == 70
    assert found["encoder"]["name"] == "tiny"
    assert found["encoder"]["preparation"]["input_size"] == [3, 8, 8]
    assert found["encoder"]["compressed_size"] == {"codec": "zstd", "level": 1}
    assert found["reference"]["count"] == 70
    assert found["reference"]["embedding_size"] == len(found["reference"]["spectrum"]) == 5
    dimension = found["reference"]["intrinsic_dimension"]
    assert dimension["low"] <= dimension["estimate"] <= dimension["high"]
    assert found["volumes"]["estimator"] == "exact"
    assert found["volumes"]["rank"] == round(dimension["estimate"])
    assert list(found["columns"]) == table.column_names
    assert {"torch", "timm", "jepa-train"} <= found["versions"].keys()
    assert found["seconds"].keys() == {"embeddings", "reference", "scores", "volumes", "nearest"}
    assert found["seed"] == 0
    assert any("1 of 71 files" in warning for warning in found["warnings"])


def test_a_collapsed_encoder_is_a_warning_and_a_table(tmp_path: Path) -> None:
    images = pictures(tmp_path / "photos", 20)
    table = rank_quietly(images, tmp_path / "ranked", encoder=encoder_of(Constant().eval()))
    assert table["log_density"].null_count == 20
    assert table["compressed_size"].null_count == 0
    assert "has collapsed" in summary(tmp_path / "ranked")["warnings"][0]


def test_scores_of_files_alone_need_no_reference(photos: Path, tmp_path: Path) -> None:
    table = rank_quietly(photos, tmp_path / "ranked", scores="compressed_size")
    assert table.column_names == ["filename", "class", "compressed_size", "reason"]
    found = summary(tmp_path / "ranked")
    assert found["reference"] is None
    assert not (tmp_path / "ranked" / "reference.pt").exists()


@pytest.mark.parametrize("scores", ["mahalanobis,knn_distance", "nearest_distance", "embedding_log_density"])
def test_what_is_not_asked_for_is_not_computed_but_warned_of(photos: Path, tmp_path: Path, scores: str) -> None:
    table = rank_quietly(photos, tmp_path / "ranked", scores=scores)
    assert "1 of 71 files could not be read: reason says why." in summary(tmp_path / "ranked")["warnings"]
    assert set(scores.split(",")) <= set(table.column_names)
    assert not (tmp_path / "ranked" / "parts" / "volumes").exists()
