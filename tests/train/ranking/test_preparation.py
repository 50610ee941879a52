"""Pictures become an encoder's input."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from jepa_train.data.transforms import data_config
from jepa_train.ranking.preparation import PicturePreparation


def test_it_is_timms_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    assert torch.equal(PicturePreparation(data_config(16))(picture), create_transform(**data_config(16))(picture))
