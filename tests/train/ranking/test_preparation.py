"""Pictures become an encoder's input: timm's transform, behind what a viewer would show."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from jepa_train.data.transforms import data_config, to_rgb
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.preparation import PicturePreparation
from tests.train.ranking.helpers import picture


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_clip_224.openai", "vit_gigantic_patch14_clip_378.metaclip2_worldwide"]
)
def test_it_is_timms_transform_bit_for_bit(name: str) -> None:
    stated = get_pretrained_cfg(name).to_dict()
    config = resolve_data_config({"input_size": (3, 32, 32)}, pretrained_cfg=stated)
    for size in ((37, 50), (9, 7), (32, 32), (90, 40)):
        prepared = PicturePreparation(config)(picture(*size))
        assert torch.equal(prepared, create_transform(**config)(picture(*size)))


def test_pixels_are_what_mean_and_deviation_come_behind() -> None:
    prepare = PicturePreparation(data_config(16))
    pixels = prepare.pixels(picture())
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 16, 16))
    assert torch.equal(prepare.normalised(pixels), prepare(picture()))
    assert torch.equal(pickle.loads(pickle.dumps(prepare))(picture()), prepare(picture()))


def test_grey_encoders_take_grey_pictures() -> None:
    prepare = PicturePreparation(data_config(16, mean=[0.5], deviation=[0.5]))
    grey = picture(channels=1)
    assert torch.equal(prepare(grey), create_transform(**data_config(16, mean=[0.5], deviation=[0.5]))(grey))
    assert torch.equal(prepare(picture()), prepare(picture().convert("L")))


def test_transparent_pixels_show_the_background() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert PicturePreparation(data_config(8)).pixels(clear).eq(255).all()
    assert PicturePreparation(data_config(8), background="black").pixels(clear).eq(0).all()
    assert torch.equal(
        PicturePreparation(data_config(8)).pixels(to_rgb(clear)), PicturePreparation(data_config(8)).pixels(clear)
    )


def test_other_channels_and_colors_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"takes images of 4 channels, but pictures have 3, or 1"):
        PicturePreparation(data_config(8, mean=[0.5] * 4, deviation=[0.5] * 4))
    with pytest.raises(ConfigurationError, match="background must be a color"):
        PicturePreparation(data_config(8), background="no color")
