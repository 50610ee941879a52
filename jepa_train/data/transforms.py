"""Pictures of any size and mode become square tensors, by the whole picture or by another crop each time.

What Pillow opened is first made upright RGB of 8 bit, as a viewer shows it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import v2

from jepa_train.errors import ConfigurationError

# what opening, decoding or checking a file that is no whole image ends in
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, UnidentifiedImageError, Image.DecompressionBombError)

THINNEST = 16  # times as long as wide

Item = TypeVar("Item")


def shuffled(items: Sequence[Item]) -> list[Item]:
    """Put items into an order that is random but always the same, so that the first ones stand for all."""
    return [items[int(index)] for index in np.random.default_rng(0).permutation(len(items))]


def data_config(
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    deviation: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> dict[str, Any]:
    """Make arguments of ``timm.data.create_transform``, by the names of timm's ``config.json``, in plain types.

    Args:
        image_size: height and width of the result, in pixels; the short side is resized to it, the centre cropped.
        mean, deviation: mean and deviation of the pixels in [0, 1], one number a channel; the result is
            (pixels - mean) / deviation.
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


def check_color(background: str) -> str:
    """Return the color, if Pillow knows it.

    Raises:
        ConfigurationError: if it does not.
    """
    try:
        ImageColor.getrgb(background)
    except (ValueError, AttributeError):
        raise ConfigurationError(
            f"background must be a color such as white or #808080, got {background!r}: see Pillow's ImageColor."
        ) from None
    return background


def to_rgb(picture: Image.Image, background: str = "white") -> Image.Image:
    """Show a picture as a viewer does: turned as its EXIF tag says, on a background where it is transparent, in RGB.

    Doing it twice does no more than once. A picture that need not change is returned itself, because a copy of a large
    one is hundreds of megabytes.
    """
    picture = eight_bit(upright(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF tag says; Pillow's own function fails where other tags are damaged."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, TypeError, struct.error):
        return picture
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    if orientation not in turns:
        return picture
    turned = picture.transpose(turns[orientation])
    turned.info = {key: value for key, value in turned.info.items() if key == "transparency"}  # not to be turned again
    return turned


def eight_bit(picture: Image.Image) -> Image.Image:
    """Bring greyscale of more than 8 bit to 8, which Pillow's own conversion cuts off at 255; leave others as they are.

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


def without_ends(picture: Image.Image) -> Image.Image:
    """Cut the ends off a picture thinner than 1 : 16: the middle is all that a square crop shows of it.

    Resized whole, until its short side has 224 pixels, one of 1 x 30,000 pixels would have 1.5 billion.
    """
    width, height = picture.size
    cut_x, cut_y = max(0, width - THINNEST * height) // 2, max(0, height - THINNEST * width) // 2
    return picture.crop((cut_x, cut_y, width - cut_x, height - cut_y)) if cut_x or cut_y else picture
