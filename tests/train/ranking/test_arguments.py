"""Arguments from Python: one sentence for a wrong one, with the nearest choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking import DataSettings, RankingWriter, load_encoder, merge, rank
from jepa_train.ranking.arguments import check_arguments, check_choice
from tests.train.ranking.tiny import rank_quietly, tiny_encoder


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"estimator": "exakt"}, r"estimator must be one of auto, exact, subspace, got 'exakt' \(is exact meant\?\)\."),
        ({"estimator": None}, "estimator must be one of auto, exact, subspace, got None"),
        ({"stage": "refrence"}, r"stage must be one of all, reference, got 'refrence' \(is reference meant\?\)"),
        ({"scores": "log_densty"}, r"there is no score 'log_densty' \(is log_density meant\?\)"),
        ({"scores": [1]}, "there is no score '1'"),
        ({"scores": 7}, "scores must be text or a list or None, got 7"),
        ({"encoder": "test_vit", "pooling": "meen"}, r"pooling must be one of .*, got 'meen' \(is mean meant\?\)"),
        ({"encoder": 5}, "encoder must be text or ImageEncoder, got 5"),
        ({"images": 5}, "images must be a path or text or None, got 5"),
        ({"output": None}, "output must be a path or text, got None"),
        ({"budget": 30}, "budget must be text or None, got 30"),
        ({"shard": (1, 2)}, r"shard must be text or None, got \(1, 2\)"),
        ({"image_size": "224"}, "image_size must be a whole number or None, got '224'"),
        ({"image_size": True}, "image_size must be a whole number or None, got True"),
        ({"overwrite": "no"}, "overwrite must be True or False, got 'no'"),
        ({"data": {"batch_size": 4}}, "data must be DataSettings, got"),
        ({"data": DataSettings(batch_size="4")}, "data.batch_size must be a whole number, got '4'"),  # type: ignore[arg-type]  # on purpose
        ({"data": DataSettings(num_workers=-1)}, "--data.num_workers must be 0 or more, got -1"),
        ({"trainer": ["cpu"]}, "trainer must be a dictionary or None"),
        ({"trainer": {"device": 2}}, r"Trainer has no argument 'device' \(is devices meant\?\)"),
    ],
)
def test_wrong_arguments_of_rank_are_one_sentence(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).touch()
    given = {"images": tmp_path / "photos", "encoder": tiny_encoder(), "output": tmp_path / "ranked", **settings}
    with pytest.raises(ConfigurationError, match=sentence):
        rank(**given)
    assert not (tmp_path / "ranked").exists()


def test_wrong_arguments_of_the_others_too(photos: Path, tmp_path: Path) -> None:
    for function, wrong in {load_encoder: {"name": 5}, merge: {"shards": 5}, RankingWriter: {"volumes": "all"}}.items():
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be"):
            function(**wrong)
    rank_quietly(photos, tmp_path / "one", scores="compressed_size")
    assert len(merge(str(tmp_path / "one"), output=tmp_path / "merged", page=False)) == 71


def test_numbers_of_numpy_are_numbers() -> None:
    def function(count: int, name: str | None = None) -> None: ...

    check_arguments(function, {"count": np.int64(3), "name": None, "other": 1})
    with pytest.raises(ConfigurationError, match="count must be a whole number, got"):
        check_arguments(function, {"count": 3.0})


def test_a_choice_that_resembles_none_is_named_without_a_guess() -> None:
    with pytest.raises(ConfigurationError, match=r"color must be one of red, green, got 'blue'\.$"):
        check_choice("color", "blue", ["red", "green"])
