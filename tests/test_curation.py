"""The folders of benchmarks/curation.py, and how it judges what finds the faults in them."""

from __future__ import annotations

import json
from pathlib import Path

import curation
import numpy as np
import pyarrow as pa
import pytest
import torch
from curation import Comparison, comparisons
from PIL import Image
from planted.faults import DUPLICATES, FAULTS, KINDS, WRONG, Pictures, make_folders, make_reference, pictures, plant
from planted.precision import doubts, interval

from jepa_train.data import FashionMNISTDataModule
from tests.train.data.helpers import write_idx
from tests.train.ranking.helpers import written_checkpoint

CLEAN = 100  # images


def some(count: int, *, first: int = 0) -> Pictures:
    """Pictures of smooth stripes, no two alike; each pixel tells its picture."""
    stripes = torch.linspace(0.0, 100.0, 28)[None, :, None]
    numbers = torch.arange(first, first + count)[:, None, None]
    return Pictures((stripes + numbers).expand(-1, 28, 28), torch.arange(count) % 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FashionMNISTDataModule:
    """Small files in the place of Fashion-MNIST and MNIST."""
    root = tmp_path_factory.mktemp("idx")
    write_idx(root / "FashionMNIST" / "raw", seed=0)
    write_idx(root / "MNIST" / "raw", seed=1)
    return FashionMNISTDataModule(root=root)


def pixels(folder: Path) -> list[bytes]:
    """Pixels of each picture of a folder."""
    return [np.asarray(Image.open(path)).tobytes() for path in sorted(folder.rglob("*.png"))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_fault_is_two_percent_and_of_duplicates_both_copies(kind: str) -> None:
    clean, others, digits = some(CLEAN), some(5, first=120), some(5, first=150).pixels
    planted = plant(kind, clean, others, digits, torch.Generator().manual_seed(0))
    assert len(planted.pictures.pixels) == len(planted.is_fault) == CLEAN + 2
    assert torch.equal(planted.pictures.pixels[:CLEAN], clean.pixels)
    assert planted.is_fault.nonzero()[0].tolist() == [*([0, 1] if kind in DUPLICATES else []), CLEAN, CLEAN + 1]
    added, labels = planted.pictures.pixels[CLEAN:], planted.pictures.labels[CLEAN:]
    assert torch.equal(added, others.pixels[:2]) == (kind == WRONG)
    assert torch.equal(labels, others.labels[:2]) == (kind != WRONG)
    if kind in FAULTS:
        assert not torch.equal(added, clean.pixels[:2])
    if kind == "exact duplicates":
        assert torch.equal(added, clean.pixels[:2])


def test_folders_are_written_once_with_the_names_of_their_faults(tmp_path: Path, data: FashionMNISTDataModule) -> None:
    make_folders(tmp_path, data, ["digits"], CLEAN)
    faults = json.loads((tmp_path / "digits.json").read_text())
    assert len(pixels(tmp_path / "digits")) == CLEAN + 2
    drawn = pictures(data, data.ood_datasets()["mnist"]).pixels.round().byte()
    digits = {image.numpy().tobytes() for image in drawn}
    assert all(np.asarray(Image.open(tmp_path / "digits" / name)).tobytes() in digits for name in faults)
    (tmp_path / "digits" / faults[0]).unlink()
    make_folders(tmp_path, data, ["digits"], CLEAN)
    assert len(pixels(tmp_path / "digits")) == CLEAN + 1  # not made again


def test_the_clean_reference_has_no_image_of_a_folder(tmp_path: Path, data: FashionMNISTDataModule) -> None:
    make_folders(tmp_path, data, ["wrong class"], CLEAN)
    make_reference(tmp_path / "reference 50", data, 50)
    reference = pixels(tmp_path / "reference 50")
    assert len(set(reference)) == 50
    assert set(reference).isdisjoint(pixels(tmp_path / "wrong class"))
    assert json.loads((tmp_path / "reference 50.json").read_text()) == []


def test_each_seed_is_compared_and_one_of_random_weights(tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"fashion_mnist_{seed}").mkdir()
        (tmp_path / f"fashion_mnist_{seed}" / "last.ckpt").touch()
    found = list(comparisons(tmp_path, ["auto", "mean"], [0, 2], clean=0))
    assert [(one.encoder, one.seed, one.pooling) for one in found] == [
        *(("trained", seed, pooling) for seed in (0, 2) for pooling in ("auto", "mean")),
        *(("random", 0, pooling) for pooling in ("auto", "mean")),
    ]
    assert found[-1].source == f"random:{tmp_path}/fashion_mnist_0/last.ckpt"
    assert {one.encoder for one in comparisons(tmp_path, ["auto"], [1, 2], clean=0)} == {"trained"}
    apart = [one.output(tmp_path) for clean in (0, 50) for one in comparisons(tmp_path, ["auto"], [0, 1], clean)]
    assert len(set(apart)) == len(apart)  # no ranking is taken for another's


def test_doubts_are_higher_for_what_is_less_typical() -> None:
    table = pa.table(
        {
            "filename": ["common", "also", "rare"],
            "compressed_size": pa.array([100, 101, 300], pa.int64()),
            "log_density": [5.0, 4.0, None],
            **{name: [0.0, 1.0, 9.0] for name in ("mahalanobis", "knn_distance", "doubt")},
            **{name: [9.0, 8.0, 0.0] for name in ("nearest_distance", "nearest_difference")},
            "jepa_score": pa.array([None] * 3, pa.float64()),
        }
    )
    found = doubts(table)
    assert "jepa_score" not in found  # that nobody computed
    assert found["log_density"].tolist() == [-5.0, -4.0, -5.0]  # what is missing is not doubtful
    del found["log_density"], found["log_density, both ends"]
    assert all(values.argmax() == 2 for values in found.values())


def test_average_precision_has_an_interval_around_it() -> None:
    truth, doubt = np.arange(200) >= 180, np.arange(200.0)
    perfect = interval(truth, doubt)
    assert perfect == pytest.approx({"ap": 1.0, "low": 1.0, "high": 1.0, "precision": 1.0})
    mixed = interval(truth, doubt + 40.0 * np.random.default_rng(0).standard_normal(200))
    assert 0.1 < mixed["low"] < mixed["ap"] < mixed["high"] < 1.0


def test_the_table_has_medians_over_seeds_and_the_mean_over_faults(capsys: pytest.CaptureFixture[str]) -> None:
    def values(*precisions: float) -> list[dict[str, float]]:
        return [{"ap": one, "low": one - 0.1, "high": one + 0.1} for one in precisions]

    found = {"doubt": {"digits": values(0.2, 0.9, 0.6), "blur": values(0.1, 0.2, 0.3), "wrong class": values(0.5)}}
    curation.print_table("trained", found, ["digits", "blur", "wrong class"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "| doubt | 0.60 (0.10-1.00) | 0.20 (0.00-0.40) | 0.50 (0.40-0.60) | 0.40 |"
    )


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_images_are_compared_with_the_clean_reference(
    tmp_path: Path, data: FashionMNISTDataModule, pooling: str
) -> None:
    runs = tmp_path / "runs" / "fashion_mnist_0"
    runs.mkdir(parents=True)
    written_checkpoint(runs / "last.ckpt")
    make_folders(tmp_path / "images", data, ["blank"], CLEAN)
    make_reference(curation.clean_images(tmp_path, 150), data, 150)
    comparison = Comparison("trained", 0, str(runs / "last.ckpt"), pooling, clean=150)
    reference = curation.fitted(comparison, tmp_path)
    table, truth = curation.ranked(comparison, tmp_path, "blank", reference)
    assert len(table) == len(truth) == CLEAN + 2
    assert truth.sum() == 2
    summary = json.loads((comparison.output(tmp_path) / "blank" / "summary.json").read_text())
    assert summary["reference"]["count"] == 150  # whole
    assert summary["reference"]["source"] == str(curation.clean_images(tmp_path, 150))
    z = curation.embeddings_of(comparison.output(tmp_path) / "blank", "embeddings")
    assert z.shape == (CLEAN + 2, 3 if pooling == "auto" else 16)
