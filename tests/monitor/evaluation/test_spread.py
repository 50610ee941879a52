"""The spread of features needs no labels; views of what are no images are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from jepa_monitor import FeatureStatistics, LiDAR
from tests.monitor.helpers import Autoencoder, images, trainer

# the frozen part of the project is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def test_inputs_that_are_no_images_need_views_of_their_own(tmp_path: Path) -> None:
    flat = DataLoader(TensorDataset(images(40).flatten(1)), batch_size=8)
    with pytest.warns(UserWarning, match="pass view="):
        trainer(tmp_path, LiDAR(), max_epochs=1).fit(Autoencoder(), flat, flat)

    def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    callback = LiDAR(view=jitter, on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(Autoencoder(), flat, flat)
    assert 1.0 < callback.values["features/lidar"] <= 12.0


def test_a_checkpoint_is_kept_by_recovery(tmp_path: Path) -> None:
    statistics = FeatureStatistics(on_error="raise")
    best = ModelCheckpoint(tmp_path, monitor="features/recovery", mode="max")
    data = DataLoader(TensorDataset(images(40)), batch_size=8)
    trainer(tmp_path, statistics, best, max_epochs=2, enable_checkpointing=True).fit(Autoencoder(), data, data)
    assert best.best_model_path
    last = torch.tensor(statistics.values["features/recovery"], dtype=torch.float32)  # as Lightning keeps it
    assert 0.0 <= last <= best.best_model_score <= 1.0


def test_the_wrong_way_to_follow_recovery_is_warned_of(tmp_path: Path) -> None:
    wrong = ModelCheckpoint(tmp_path, monitor="features/recovery")
    data = DataLoader(TensorDataset(images(40)), batch_size=8)
    with pytest.warns(UserWarning, match="pass mode='max'"):
        trainer(tmp_path, FeatureStatistics(), wrong, max_epochs=1, enable_checkpointing=True).fit(
            Autoencoder(), data, data
        )
