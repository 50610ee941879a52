"""A folder becomes a table, by the library and by the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, encoder_volume, jepa_score
from jepa_train.errors import ConfigurationError
from tests.train.ranking.tiny import IN_THIS_PROCESS, encoder_of, pictures, rank_quietly, tiny_encoder, values


def test_the_columns_are_those_of_the_formulas(photos: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    table = rank_quietly(photos, tmp_path / "ranked", encoder=encoder)
    assert table.equals(pq.read_table(tmp_path / "ranked" / "ranking.parquet"))
    assert table.column_names[:2] == ["filename", "class"]
    names = table["filename"].to_pylist()
    assert names == sorted(names)
    readable = [name for name in names if "broken" not in name]

    x = torch.stack([encoder.prepare(Image.open(photos / name)) for name in readable])
    with torch.no_grad():
        z = encoder.module(x)
    reference = EmbeddingReference.fit(z)
    rows = [name in readable for name in names]
    for name, expected in {
        "embedding_log_density": reference.leave_one_out(),
        "log_volume": encoder_volume(encoder.module, x, rank=reference.rank),
        "jepa_score": jepa_score(encoder.module, x),
    }.items():
        np.testing.assert_allclose(values(table, name)[rows], expected.numpy(), atol=1e-4)
    density = values(table, "log_density")
    np.testing.assert_allclose(density, values(table, "log_volume") + values(table, "embedding_log_density"))
    order = rankdata(density[rows])
    np.testing.assert_allclose(values(table, "percentile")[rows], 100 * (order - 0.5) / len(readable))
    assert table["reason"].to_pylist()[names.index("dogs/broken.png")]
    assert sum(reason is not None for reason in table["reason"].to_pylist()) == 1


def test_a_table_as_csv_has_its_folder_beside_it(photos: Path, tmp_path: Path) -> None:
    parquet = rank_quietly(photos, tmp_path / "ranked")
    csv = rank_quietly(photos, tmp_path / "other.csv")
    assert csv.equals(parquet)
    assert (tmp_path / "other.csv").is_file()
    assert (tmp_path / "other" / "manifest.json").is_file()


def test_a_second_call_changes_nothing(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "ranked")
    files = {path: path.read_bytes() for path in sorted((tmp_path / "ranked").rglob("*.arrow"))}
    times = {path: path.stat().st_mtime_ns for path in files}
    table = (tmp_path / "ranked" / "ranking.parquet").read_bytes()
    rank_quietly(photos, tmp_path / "ranked")
    assert times == {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "ranked").rglob("*.arrow"))}
    assert table == (tmp_path / "ranked" / "ranking.parquet").read_bytes()


def test_another_ranking_is_refused(photos: Path, tmp_path: Path) -> None:
    before = rank_quietly(photos, tmp_path / "ranked")
    others: dict[str, dict[str, Any]] = {
        "another estimator": {"estimator": "subspace"},
        "another seed": {"seed": 1},
        "another number of images a part": {"data": replace(IN_THIS_PROCESS, part_size=8)},
        "begun with another encoder": {"encoder": tiny_encoder(6)},
    }
    for message, settings in others.items():
        with pytest.raises(ConfigurationError, match=message):
            rank_quietly(photos, tmp_path / "ranked", **settings)
    assert before.equals(pq.read_table(tmp_path / "ranked" / "ranking.parquet"))
    rank_quietly(photos, tmp_path / "ranked", overwrite=True, encoder=tiny_encoder(6))


def test_other_files_are_not_touched(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds other files and no ranking"):
        rank_quietly(photos, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_a_readable_image_is_one_sentence_and_files_alone_say_why(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigurationError, match="photos"):
        rank_quietly(tmp_path / "photos", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigurationError, match=r"only 0 of 3 images of .*photos .* give more images, or a --ref"):
        rank_quietly(tmp_path / "photos", tmp_path / "ranked")
    assert not (tmp_path / "ranked").exists()
    files = rank_quietly(tmp_path / "photos", tmp_path / "ranked", scores="compressed_size")
    assert files["reason"].null_count == 0
    with pytest.raises(ConfigurationError, match="only 0 of 3 images"):
        rank_quietly(tmp_path / "photos", tmp_path / "ranked")
    assert (tmp_path / "ranked" / "ranking.parquet").exists()  # a result stays, with all that it is made of
    assert rank_quietly(tmp_path / "photos", tmp_path / "ranked", scores="compressed_size").equals(files)


@pytest.mark.parametrize(("count", "lacking"), [(2, 2), (3, 0), (5, 0)])  # of two no covariance can be shrunk
def test_few_images_are_ranked_with_a_warning(tmp_path: Path, count: int, lacking: int) -> None:
    table = rank_quietly(pictures(tmp_path / "photos", count), tmp_path / "ranked")
    assert table["log_density"].null_count == lacking
    assert table["nearest_distance"].null_count == 0
    warnings = json.loads((tmp_path / "ranked" / "summary.json").read_text())["warnings"]
    assert any(f"{count} different embeddings" in sentence for sentence in warnings)
    assert not any("has collapsed" in sentence for sentence in warnings)


def test_a_table_that_is_there_is_not_written_over(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        rank_quietly(photos, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    rank_quietly(photos, tmp_path / "mine.csv", overwrite=True, scores="compressed_size")
    assert (tmp_path / "mine.csv").read_text().startswith('"filename"')


class Broken(nn.Module):
    """Fails on what is not blank, as on the first image that is read."""

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        if (x != x[0, :, :1, :1]).any():
            raise IndexError("a bug of the user's")
        return x.flatten(1)[:, :4]


def test_what_is_refused_leaves_the_place_free(tmp_path: Path) -> None:
    photos, output = pictures(tmp_path / "photos", 3), tmp_path / "ranked"
    unreadable = pictures(tmp_path / "unreadable", 1)
    (unreadable / "broken.png").write_bytes(b"not a picture")
    refused: dict[str, dict[str, Any]] = {
        "only 1 of 2 images of .*unreadable": {"images": unreadable},
        "unreadable could be read .* give a folder with more": {"reference": unreadable},
        "subspace needs more than the 3 reference embeddings": {"estimator": "subspace"},
        "a bug of the user's": {"encoder": encoder_of(Broken()), "scores": "mahalanobis"},
    }
    for message, settings in refused.items():
        with pytest.raises((ConfigurationError, IndexError), match=message):
            rank_quietly(**{"images": photos, "output": output, **settings})
        assert not output.exists(), message
    rank_quietly(photos, output, scores="mahalanobis")


def test_a_refused_call_leaves_a_reference_that_was_made(tmp_path: Path) -> None:
    photos, output = pictures(tmp_path / "photos", 3), tmp_path / "ranked"
    rank_quietly(photos, output, stage="reference", estimator="exact", scores="mahalanobis")
    before = (output / "reference.pt").read_bytes()
    with pytest.raises(ConfigurationError, match="begun with another list of images"):
        rank_quietly(pictures(tmp_path / "others", 4), output)
    assert (output / "reference.pt").read_bytes() == before


def test_a_table_of_somebody_else_beside_a_ranking_is_kept(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "ranked", scores="compressed_size")
    (tmp_path / "ranked.csv").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        rank_quietly(photos, tmp_path / "ranked.csv", scores="compressed_size")
    assert (tmp_path / "ranked.csv").read_text() == "mine"


def test_a_copy_of_the_images_is_gone_on_with(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 20)
    first = rank_quietly(photos, tmp_path / "ranked", scores="compressed_size")
    copied = tmp_path / "elsewhere"
    shutil.copytree(photos, copied, copy_function=shutil.copyfile)
    assert rank_quietly(copied, tmp_path / "ranked", scores="compressed_size").equals(first)


@pytest.mark.filterwarnings("default:Skipped")
def test_a_ranking_below_its_images_is_not_ranked(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 20)
    names = rank_quietly(photos, photos / "ranked", page=True)["filename"].to_pylist()
    assert rank_quietly(photos, photos / "ranked", scores="mahalanobis", page=True)["filename"].to_pylist() == names
    assert rank_quietly(photos, tmp_path / "again")["filename"].to_pylist() == names


def test_overwrite_begins_anew_and_a_folder_of_a_ranking_is_a_reference(photos: Path, tmp_path: Path) -> None:
    first = rank_quietly(photos, tmp_path / "ranked", scores="mahalanobis")
    (tmp_path / "ranked" / "reference.pt").write_bytes(b"damaged")
    again = rank_quietly(photos, tmp_path / "ranked", scores="mahalanobis", overwrite=True)
    assert again.equals(first)
    by_folder = rank_quietly(photos, tmp_path / "by_folder", scores="mahalanobis", reference=tmp_path / "ranked")
    assert by_folder.equals(first)
