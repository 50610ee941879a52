"""The spread of features needs no labels; views of what are no images are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from jepa_monitor import LiDAR
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
