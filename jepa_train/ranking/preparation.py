"""Pictures become an encoder's input: made RGB as a viewer shows it, then what timm's data config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

from jepa_train.data.transforms import check_color, to_rgb, without_ends
from jepa_train.errors import ConfigurationError

KEYS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")


class PicturePreparation:
    """Turn a picture of any size and mode into an encoder's input, the same each time.

    First come 8-bit pixels (:meth:`pixels`), then mean and deviation (:meth:`normalised`). A class, because workers
    that are spawned need what can be pickled.

    Args:
        data_config: arguments of ``timm.data.create_transform``; its ``input_size`` (C, H, W) has one channel (grey)
            or three.
        background: color behind transparent pixels, as Pillow names it.

    Raises:
        ConfigurationError: for another number of channels, or no such color.
    """

    def __init__(self, data_config: Mapping[str, Any], *, background: str = "white") -> None:
        self.data_config = {key: data_config[key] for key in KEYS}
        self.background = check_color(background)
        channels = int(data_config["input_size"][0])
        if channels not in (1, 3):
            raise ConfigurationError(
                f"the encoder takes images of {channels} channels, but pictures have 3, or 1 when grey: choose another "
                "--encoder."
            )
        self.mode = {1: "L", 3: "RGB"}[channels]
        self._to_pixels = create_transform(**self.data_config, normalize=False)
        self._mean, self._std = (torch.tensor(data_config[key]).view(-1, 1, 1) for key in ("mean", "std"))

    def pixels(self, picture: Image.Image) -> Tensor:
        """Resized and cropped, (C, H, W) uint8."""
        picture = without_ends(to_rgb(picture, self.background))
        return cast("Tensor", self._to_pixels(picture if picture.mode == self.mode else picture.convert(self.mode)))

    def normalised(self, pixels: Tensor) -> Tensor:
        """(..., C, H, W) uint8 -> float32, on their device: pixels in [0, 1], less the mean, over the deviation."""
        mean, std = (values.to(pixels.device) for values in (self._mean, self._std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def __call__(self, picture: Image.Image) -> Tensor:
        """(C, H, W) float32."""
        return self.normalised(self.pixels(picture))
