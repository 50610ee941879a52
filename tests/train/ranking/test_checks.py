"""A ranking that cannot be is refused before the first image is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jepa_train.errors import ConfigurationError
from tests.train.ranking.tiny import pictures, rank_quietly


@pytest.mark.parametrize("settings", [{}, {"stage": "reference"}, {"scores": "mahalanobis"}])
def test_one_image_is_refused_before_it_is_read(settings: dict[str, Any], tmp_path: Path) -> None:
    one, output = pictures(tmp_path / "one", 1), tmp_path / "ranked"
    with pytest.raises(ConfigurationError, match="one has 1 image, and a ranking compares at least 2: give more"):
        rank_quietly(one, output, **settings)
    with pytest.raises(ConfigurationError, match=r"the --reference .*one has 1 image, and needs at least 2: give a"):
        rank_quietly(pictures(tmp_path / "photos", 3), output, reference=one, **settings)
    assert not output.exists()
    assert len(rank_quietly(one, output, scores="compressed_size")) == 1


def test_classes_need_folders(tmp_path: Path) -> None:
    flat = pictures(tmp_path / "photos", 3)
    for scores in ("class_percentile", "log_density,class_percentile"):
        with pytest.raises(ConfigurationError, match="there are no classes for class_percentile"):
            rank_quietly(flat, tmp_path / "ranked", scores=scores)
    assert not (tmp_path / "ranked").exists()


def test_the_folder_of_the_images_is_no_output(photos: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"folder of the images, and all else of .*\.csv would be written"):
        rank_quietly(photos, photos.with_suffix(".csv"))


def test_the_reference_of_the_ranking_that_is_replaced_is_refused(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "ranked", scores="mahalanobis")
    before = (tmp_path / "ranked" / "reference.pt").read_bytes()
    for named in (tmp_path / "ranked", tmp_path / "ranked" / "reference.pt"):
        with pytest.raises(ConfigurationError, match=r"of the ranking that --overwrite replaces: copy it elsewhere"):
            rank_quietly(photos, tmp_path / "ranked", scores="mahalanobis", reference=named, overwrite=True)
    assert (tmp_path / "ranked" / "reference.pt").read_bytes() == before
