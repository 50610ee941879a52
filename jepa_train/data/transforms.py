"""From a picture of any size to a square tensor, always the same or another crop each time; and a fair order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from jepa_train.errors import ConfigurationError

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ToTensor = Callable[[Any], Tensor]
Item = TypeVar("Item")


def shuffled(items: Sequence[Item]) -> list[Item]:
    """The items in an order that is random but always the same, so that the first ones stand for all."""
    return [items[int(index)] for index in np.random.default_rng(0).permutation(len(items))]


def whole_image(image_size: int) -> ToTensor:
    """The short side resized, the centre cropped, ImageNet normalisation: PIL image -> (3, image_size, image_size).

    Greyscale of 16 bit keeps its range; that of 32 bit, which has none, is stretched to the picture's own.
    """
    return _transform([v2.ToImage(), v2.Resize(image_size, antialias=True), v2.CenterCrop(image_size)])


def random_image(image_size: int, *, crop_scale: Sequence[float] | None, flip: bool) -> ToTensor | None:
    """As :func:`whole_image`, drawn at random from torch's global generator.

    Args:
        image_size: height and width of the result, in pixels.
        crop_scale: smallest and largest share of the picture's area in a crop, whose height and width then become
            ``image_size``; ``None`` takes the centre, as :func:`whole_image`.
        flip: mirror left and right with probability one half.

    Returns:
        the transform, or ``None`` where nothing is drawn.

    Raises:
        ConfigurationError: if ``crop_scale`` is no range within (0, 1].
    """
    if crop_scale is None and not flip:
        return None
    steps: list[Any] = [v2.ToImage(), v2.Resize(image_size, antialias=True), v2.CenterCrop(image_size)]
    if crop_scale is not None:
        if len(crop_scale) != 2 or not 0.0 < crop_scale[0] <= crop_scale[1] <= 1.0:
            raise ConfigurationError(
                f"crop_scale is the smallest and the largest share of the area, such as [0.3, 1.0]; got {crop_scale}."
            )
        # cut before the conversion, so that only the crop is converted
        steps = [v2.RandomResizedCrop(image_size, scale=tuple(crop_scale), antialias=True), v2.ToImage()]
    return _transform([*steps, v2.RandomHorizontalFlip()] if flip else steps)


def _transform(steps: list[Any]) -> ToTensor:
    to_square = v2.Compose(
        [*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)]
    )
    return _PlainTensor(to_square)


class _PlainTensor:
    """RGB in, plain tensor out; a class, because workers that are spawned need what can be pickled."""

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __call__(self, picture: Any) -> Tensor:
        return self.transform(_eight_bit(picture).convert("RGB")).as_subclass(Tensor)


def _eight_bit(picture: Any) -> Any:
    """Greyscale of more than 8 bit brought to 8, which Pillow's own conversion cuts off at 255; others as they are.

    16 bit (modes ``I;16...``) has a white, 65535, which becomes 255. 32-bit integers and floats (``I`` and ``F``) have
    none, so the picture's own smallest finite value becomes 0 and its largest 255; what is not finite, and a picture of
    a single value, becomes 0.
    """
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) / 257.0).round().astype(np.uint8))
    if picture.mode not in ("I", "F"):
        return picture
    values = np.asarray(picture).astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, values - low, 0.0) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(scaled.round().astype(np.uint8))
