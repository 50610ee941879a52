"""From a picture of any size to a square tensor, always the same or another crop each time; and a fair order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import v2

from jepa_train.data.decoding import check_color, to_rgb, without_ends
from jepa_train.errors import ConfigurationError

Item = TypeVar("Item")


def shuffled(items: Sequence[Item]) -> list[Item]:
    """The items in an order that is random but always the same, so that the first ones stand for all."""
    return [items[int(index)] for index in np.random.default_rng(0).permutation(len(items))]


def data_config(
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    deviation: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> dict[str, Any]:
    """Arguments of ``timm.data.create_transform``, by the names of timm's ``config.json``, in plain types.

    Args:
        image_size: height and width of the result, in pixels; the short side is resized to it, the centre cropped.
        mean, deviation: of the pixels in [0, 1], one number a channel; the result is (pixels - mean) / deviation.
    """
    return {
        "input_size": [len(mean), image_size, image_size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(mean),
        "std": list(deviation),
    }


class PictureToTensor:
    """Turn a picture into a normalised tensor (3, image_size, image_size).

    The picture is made RGB as a viewer shows it, see :func:`to_rgb`; what follows is timm's transform of
    :func:`data_config`. Random numbers come from torch's global generator. A class, because workers that are spawned
    need what can be pickled.

    Args:
        image_size: height and width of the result, in pixels.
        background: color behind transparent pixels, as Pillow names it.
        crop_scale: smallest and largest share of the picture's area in a random crop, whose height and width then
            become ``image_size``; ``None`` takes the centre.
        flip: mirror left and right with probability one half.

    Raises:
        ConfigurationError: if ``crop_scale`` is no range within (0, 1], or there is no such color.
    """

    def __init__(
        self,
        image_size: int,
        *,
        background: str = "white",
        crop_scale: Sequence[float] | None = None,
        flip: bool = False,
    ) -> None:
        if crop_scale is not None and (len(crop_scale) != 2 or not 0.0 < crop_scale[0] <= crop_scale[1] <= 1.0):
            raise ConfigurationError(
                f"crop_scale is the smallest and the largest share of the area, such as [0.3, 1.0]; got {crop_scale}."
            )
        self.background = check_color(background)
        self.crop = without_ends if crop_scale is None else v2.RandomResizedCrop(image_size, scale=tuple(crop_scale))
        self.to_tensor = create_transform(**data_config(image_size))
        self.flip = v2.RandomHorizontalFlip() if flip else v2.Identity()

    def __call__(self, picture: Image.Image) -> Tensor:
        """(3, image_size, image_size), float32."""
        return cast("Tensor", self.flip(self.to_tensor(self.crop(to_rgb(picture, self.background)))))
