"""The benchmark of selection: recordings of a run, rules on made runs, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from keep import recording

from jepa_monitor import FeatureStatistics
from jepa_train.data import MixtureDataModule
from jepa_train.data.base import ImageTensors
from jepa_train.module import JEPA

TINY = {"encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "patch_size": 4, "projector_hidden": 8}


class Judged(MixtureDataModule):
    """Images with two classes that the mean pixel tells apart."""

    def judged(self) -> tuple[ImageTensors, ImageTensors]:
        labels = torch.arange(40) % 2
        images = torch.randn(40, 1, 16, 16) + 4.0 * labels[:, None, None, None]
        return ImageTensors(images, labels), ImageTensors(images.flip(3), labels)


def test_tags_and_accuracies_of_every_validation_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = JEPA(image_size=16, channels=1, embedding_size=4, predictor_width=16, predictor_depth=1, **TINY)
    features = FeatureStatistics(num_samples=32, encoder="features")
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 1}
    trainer = pl.Trainer(
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[features, recording.Record()],
        **options,
    )
    trainer.fit(module, Judged(num_train=128, num_probe=32, batch_size=32))
    kept = json.loads((tmp_path / recording.MEASUREMENTS).read_text())
    assert [row["step"] for row in kept] == [2, 4]
    for row in kept:
        assert row["judge/linear_probe"] == 1.0
        assert row["judge/knn"] > 0.6
        assert 0.0 < row["features/rank_ratio"] < 1.0
        assert math.isfinite(row["train/loss"])


def test_a_value_without_meaning_is_null_and_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / recording.MEASUREMENTS
    recording.write([{"step": 1, "tag": math.nan}], path)
    assert json.loads(path.read_text()) == [{"step": 1, "tag": None}]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
