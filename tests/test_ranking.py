"""The measuring tools of benchmarks/ranking.py on small files, and which parts the command runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import ranking
import torch
from PIL import Image
from rates.complexity import by_zlib, by_zstd, crops
from rates.costs import Peak, apart, medians
from rates.images import Files, garments, photographs, small_pictures
from rates.rankings import Small, encoder_of
from rates.whole import rank_small, stages

from jepa_train.data import FashionMNISTDataModule
from tests.train.data.helpers import write_idx

MIB = 1 << 20


def test_files_are_read_in_order_and_prepared(tmp_path: Path) -> None:
    encoder = encoder_of(Small(), 3, 8, "small")
    files = Files(photographs(tmp_path / "photographs", 3, 8), encoder.prepare)
    assert len(files) == 3
    with Image.open(tmp_path / "photographs" / "000001.jpg") as picture:
        assert torch.equal(files[1], encoder.prepare(picture))


def test_garments_are_the_test_images_by_class_and_written_once(tmp_path: Path) -> None:
    write_idx(tmp_path / "idx" / "FashionMNIST" / "raw", seed=0)
    data = FashionMNISTDataModule(root=tmp_path / "idx")
    folder = garments(tmp_path / "garments", data)
    assert sorted(path.name for path in folder.iterdir()) == [str(label) for label in range(10)]
    image = np.asarray(Image.open(folder / "3" / "00013.png")).astype(float)
    rows = image.mean(1)
    assert rows[6:12].min() > rows[[*range(6), *range(12, 28)]].max()  # how these files show class 3
    before = (folder / "3" / "00013.png").stat().st_mtime_ns
    garments(tmp_path / "garments", data)
    assert (folder / "3" / "00013.png").stat().st_mtime_ns == before


def test_sizes_of_crops_rank_alike() -> None:
    images = crops(20)
    assert images.shape == (20, 3, 224, 224)
    zstd, zlib = np.array(by_zstd(images), dtype=float), np.array(by_zlib(images), dtype=float)
    assert np.corrcoef(zstd, zlib)[0, 1] > 0.8


def test_the_peak_is_that_of_the_block() -> None:
    held = torch.ones(20 * MIB, dtype=torch.uint8)
    with Peak() as peak:
        torch.ones(50 * MIB, dtype=torch.uint8)
    assert 45 < peak.mib < 65
    with Peak() as again:
        torch.ones(10 * MIB, dtype=torch.uint8)
    assert again.mib < 25
    assert len(held) == 20 * MIB
    assert medians({"a": [1.0, 9.0, 2.0]}) == {"a": 2.0}


def test_a_ranking_has_seconds_of_each_stage(tmp_path: Path) -> None:
    seconds = rank_small(small_pictures(tmp_path / "many", 30), tmp_path / "ranked")
    assert list(seconds) == ["embeddings", "reference", "scores", "volumes", "nearest"]
    assert stages({"embeddings": 1.2, "volumes": 3.0}) == "embeddings 1 s, volumes 3 s"


@pytest.mark.slow
def test_a_process_of_its_own_does_not_count_the_memory_of_its_parent() -> None:
    held = torch.ones(1_000 * MIB, dtype=torch.uint8)
    found, peak = apart(abs, -3)
    assert found == 3
    assert 50 < peak < 1_000
    assert len(held) == 1_000 * MIB


PARTS = ("complexity", "loader", "forward", "volumes", "volumes_on_gpu", "fashion", "many")


@pytest.mark.parametrize(
    ("words", "measured"),
    [
        ("", ["complexity", "loader", "forward", "volumes", "many"]),
        ("--only forward", ["forward"]),
        ("--only volumes many", ["volumes", "many"]),
        ("--only volumes --device cuda", ["volumes_on_gpu"]),
        ("--only fashion --checkpoint last.ckpt", ["fashion"]),
    ],
)
def test_the_command_measures_what_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: str, measured: list[str]
) -> None:
    called: list[str] = []
    for name in PARTS:
        monkeypatch.setattr(ranking, name, lambda *_, name=name: called.append(name))
    monkeypatch.setattr(sys, "argv", ["ranking.py", "--images", "2", *words.split()])
    ranking.main()
    assert called == measured
