"""Shards are merged to the table of the whole, and the page stands beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.results import merge
from jepa_train.ranking.workspace import FORMAT, Workspace, open_workspace
from tests.train.ranking.tiny import rank_quietly, tiny_encoder

TABLE = "ranking.parquet"


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference and the shards 1/3 to 3/3 of a ranking, and the ranking in one piece."""
    folder = tmp_path_factory.mktemp("shards")
    rank_quietly(photos, folder / "shared", stage="reference")
    reference = folder / "shared" / "reference.pt"
    for number in (1, 2, 3):
        assert rank_quietly(photos, folder / f"{number}", reference=reference, shard=f"{number}/3") is None
    rank_quietly(photos, folder / "whole", reference=reference)
    open_workspace(folder / "predicted", {"format": FORMAT})  # as RankingWriter does
    return folder


def test_the_table_is_that_of_the_whole(shards: Path, tmp_path: Path) -> None:
    merged = merge([shards / "3", shards / "1", shards / "2"], output=tmp_path / "merged")
    assert merged["log_density"].null_count == 1
    assert (tmp_path / "merged" / TABLE).read_bytes() == (shards / "whole" / TABLE).read_bytes()
    assert (tmp_path / "merged" / "index.html").is_file()
    assert merge([shards / "1", shards / "2", shards / "3"], output=tmp_path / "merged.csv").equals(merged)


def test_a_table_of_somebody_else_is_kept(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        merge([shards / "1", shards / "2", shards / "3"], output=tmp_path / "mine.csv", page=False)
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing to merge"),
        (["1", "2"], "3/3 is missing"),
        (["1", "2", "2", "3"], "must be all shards of one ranking, each once"),
        (["1", "2", "shared"], "different rankings: another reference"),
        (["1", "2", "nowhere"], "nowhere is not the folder of a shard: name the --output of each"),
        (["predicted"], "predicted is not the folder of a shard"),
    ],
)
def test_others_are_refused(shards: Path, tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        merge([shards / name for name in names], output=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_scores_that_shards_were_asked_for_are_those_of_the_whole(shards: Path, photos: Path, tmp_path: Path) -> None:
    asked = {"reference": shards / "1" / "reference.pt", "scores": "mahalanobis"}
    for number in (1, 2):
        rank_quietly(photos, tmp_path / str(number), shard=f"{number}/2", **asked)
    merged = merge([tmp_path / "1", tmp_path / "2"], output=tmp_path / "merged")
    assert merged.equals(rank_quietly(photos, tmp_path / "whole", **asked))


def test_scores_are_those_of_the_last_call_of_each_shard(shards: Path, photos: Path, tmp_path: Path) -> None:
    asked = {"reference": shards / "1" / "reference.pt"}
    for number in (1, 2):
        rank_quietly(photos, tmp_path / str(number), shard=f"{number}/2", scores="mahalanobis", **asked)
    rank_quietly(photos, tmp_path / "2", shard="2/2", **asked)
    with pytest.raises(ConfigurationError, match=r"2 was ranked with other --scores than .*1: run the command of one"):
        merge([tmp_path / "1", tmp_path / "2"], output=tmp_path / "merged")
    rank_quietly(photos, tmp_path / "1", shard="1/2", **asked)
    merged = merge([tmp_path / "1", tmp_path / "2"], output=tmp_path / "merged")
    assert merged.equals(rank_quietly(photos, tmp_path / "whole", **asked))


def test_shards_by_one_estimator_go_together_whatever_it_was_asked_by(
    shards: Path, photos: Path, tmp_path: Path
) -> None:
    reference = shards / "shared" / "reference.pt"
    rank_quietly(photos, tmp_path / "exact", reference=reference, shard="2/3", estimator="exact")
    rank_quietly(photos, tmp_path / "none", reference=reference, shard="1/3", scores="mahalanobis")
    merge([shards / "1", tmp_path / "exact", shards / "3"], output=tmp_path / "merged", page=False)
    assert (tmp_path / "merged" / TABLE).read_bytes() == (shards / "whole" / TABLE).read_bytes()
    Workspace(tmp_path / "exact").note(estimator="subspace")
    with pytest.raises(ConfigurationError, match="of different rankings: another estimator"):
        merge([tmp_path / "none", tmp_path / "exact", shards / "3"], output=tmp_path / "merged")


def test_a_shard_that_is_not_finished_is_named(shards: Path, photos: Path, tmp_path: Path) -> None:
    reference = shards / "shared" / "reference.pt"
    rank_quietly(photos, tmp_path / "2", reference=reference, shard="2/3")
    next((tmp_path / "2" / "parts" / "scores").iterdir()).unlink()
    with pytest.raises(ConfigurationError, match=f"the shard {tmp_path / '2'} is not finished"):
        merge([shards / "1", tmp_path / "2", shards / "3"], output=tmp_path / "merged")


def test_a_shard_of_another_encoder_is_refused(shards: Path, photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "other", encoder=tiny_encoder(6), stage="reference")
    with pytest.raises(ConfigurationError, match="another encoder"):
        merge([shards / "1", tmp_path / "other", shards / "3"], output=tmp_path / "merged")


def test_a_damaged_shard_is_named_and_mends_itself(shards: Path, photos: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(shards / "2", tmp_path / "2")
    path = next(damaged.rglob("*.arrow"))
    os.truncate(path, 200)
    with pytest.raises(ConfigurationError, match=rf"{path.name} is damaged: run the command of its shard again"):
        merge([shards / "1", damaged, shards / "3"], output=tmp_path / "merged")
    with pytest.warns(UserWarning, match="are computed again"):
        rank_quietly(photos, damaged, reference=shards / "shared" / "reference.pt", shard="2/3")
    merge([shards / "1", damaged, shards / "3"], output=tmp_path / "merged", page=False)
    assert (tmp_path / "merged" / TABLE).read_bytes() == (shards / "whole" / TABLE).read_bytes()
