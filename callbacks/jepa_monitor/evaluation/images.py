"""Random views of images, as LiDAR takes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_AREA = 0.5  # of a crop
ASPECT = 4 / 3  # largest ratio of a crop's aspect to its image's


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of each image, resized to its size, and half of them mirrored.

    Crops have half to all of the area and a width to height of 3/4 to 4/3 times the image's, and lie within the image.

    Args:
        images: (B, C, H, W), floating point.
        generator: generator on the CPU.

    Raises:
        ValueError: if the inputs are no such images.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"random crops need floating-point images (B, C, H, W), got {images.dtype} of shape {tuple(images.shape)}: "
            "pass view=, a function (inputs, generator) -> inputs."
        )
    area, aspect, left, top, side = torch.rand(5, len(images), generator=generator, dtype=torch.float32)
    area = SMALLEST_AREA + (1.0 - SMALLEST_AREA) * area
    aspect = torch.exp((2.0 * aspect - 1.0) * math.log(ASPECT))
    width, height = (area * aspect).sqrt().clamp_max(1.0), (area / aspect).sqrt().clamp_max(1.0)
    mirrored = torch.where(side < 0.5, -1.0, 1.0)
    theta = area.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirrored, (2.0 * left - 1.0) * (1.0 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, (2.0 * top - 1.0) * (1.0 - height)
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
