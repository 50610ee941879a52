"""Conversion of a picture that Pillow opened to upright RGB of 8 bit, as a viewer shows it."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError

from jepa_train.errors import ConfigurationError

# what opening, decoding or checking a file that is no whole image ends in
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, UnidentifiedImageError, Image.DecompressionBombError)

THINNEST = 16  # times as long as wide


def check_color(background: str) -> str:
    """The color, if Pillow knows it.

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
    """A picture as a viewer shows it: turned as its EXIF tag says, on a background where it is transparent, in RGB."""
    picture = eight_bit(upright(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture.convert("RGB")


def upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF tag says; Pillow's own function fails where other tags are damaged."""
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
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def eight_bit(picture: Image.Image) -> Image.Image:
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


def without_ends(picture: Image.Image) -> Image.Image:
    """A picture of at most 1 : 16; of a thinner one the middle, which is all that a square crop shows of it.

    Resized whole, until its short side has 224 pixels, one of 1 x 30,000 pixels would have 1.5 billion.
    """
    width, height = picture.size
    cut_x, cut_y = max(0, width - THINNEST * height) // 2, max(0, height - THINNEST * width) // 2
    return picture.crop((cut_x, cut_y, width - cut_x, height - cut_y)) if cut_x or cut_y else picture
