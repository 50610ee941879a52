"""Changes of a picture that leave its size: flips, inversion, and four corruptions at five severities each."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

Change = Callable[[Image.Image, int], Image.Image]
SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # standard deviation of pixels in [0, 1]
BLUR = (0.015, 0.025, 0.04, 0.06, 0.09)  # standard deviation as a share of the shorter side
CONTRAST = (0.7, 0.5, 0.35, 0.2, 0.1)  # of it that is left, about the mean of the picture
QUALITY = (60, 40, 25, 15, 8)  # of JPEG


def upside_down(picture: Image.Image, index: int) -> Image.Image:
    """Flip top and bottom."""
    return ImageOps.flip(picture)


def mirrored(picture: Image.Image, index: int) -> Image.Image:
    """Flip left and right."""
    return ImageOps.mirror(picture)


def inverted(picture: Image.Image, index: int) -> Image.Image:
    """Exchange black and white."""
    return ImageOps.invert(picture)


def noise(picture: Image.Image, index: int, severity: int) -> Image.Image:
    """Add Gaussian noise to every value, drawn by the index alone."""
    pixels = np.asarray(picture).astype(np.float64)
    drawn = np.random.default_rng([index, severity]).normal(scale=255.0 * NOISE[severity - 1], size=pixels.shape)
    return _picture(pixels + drawn)


def blur(picture: Image.Image, index: int, severity: int) -> Image.Image:
    """Blur by a Gaussian."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR[severity - 1] * min(picture.size)))


def contrast(picture: Image.Image, index: int, severity: int) -> Image.Image:
    """Move every value towards the mean of the picture."""
    pixels = np.asarray(picture).astype(np.float64)
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _picture(mean + CONTRAST[severity - 1] * (pixels - mean))


def jpeg(picture: Image.Image, index: int, severity: int) -> Image.Image:
    """Save as JPEG, and read that."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=QUALITY[severity - 1])
    with Image.open(encoded) as read:
        return read.convert(picture.mode)


CORRUPTIONS: Mapping[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "JPEG": jpeg,
}


def _picture(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0.0, 255.0).astype(np.uint8))
