"""Random views of a batch: a crop-and-resize, shift and flip for each image in one resampling, then pixel noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from jepa_train.errors import ConfigurationError


@dataclass(frozen=True)
class RandomView:
    """Augmentation of whole batches, on their device.

    Attributes:
        crop_scale: smallest share of the area that a crop keeps; 1 keeps all.
        shift: largest shift, as a share of the image side.
        flip: mirror left and right with probability one half.
        noise: standard deviation of white noise added to every pixel.

    Raises:
        ConfigurationError: for a number out of its range.
    """

    crop_scale: float = 1.0
    shift: float = 0.0
    flip: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.crop_scale <= 1.0:
            raise ConfigurationError(
                f"crop_scale is the smallest share of the area that is kept, not {self.crop_scale}."
            )
        if self.shift < 0.0 or self.noise < 0.0:
            raise ConfigurationError("shift and noise must be 0 or more.")

    @property
    def moves(self) -> bool:
        """True if the same place of two views need not show the same."""
        return self.crop_scale < 1.0 or self.shift > 0.0 or self.flip

    @property
    def is_identity(self) -> bool:
        """True if a view is the image itself."""
        return self == RandomView()

    def __call__(self, images: Tensor, *, draws: Tensor, noise_generator: Generator) -> Tensor:
        """Make one view of each image.

        Args:
            images: (B, C, H, W).
            draws: (B, 4) uniform random numbers that decide crop, shifts and flip.
            noise_generator: generator on the device of the images.

        Returns:
            (B, C, H, W); pixels beyond the border repeat it.
        """
        if self.moves:
            images = self._resample(images, draws.to(images.device, images.dtype))
        if self.noise > 0.0:
            images = images + self.noise * torch.randn(
                images.shape, generator=noise_generator, device=images.device, dtype=images.dtype
            )
        return images

    def _resample(self, images: Tensor, draws: Tensor) -> Tensor:
        zoom = (self.crop_scale + (1.0 - self.crop_scale) * draws[:, 0]).sqrt()
        # a crop may lie anywhere inside the image, and the shift moves it further; coordinates run from -1 to 1
        reach = (1.0 - zoom + 2.0 * self.shift).unsqueeze(1)
        offset = reach * (2.0 * draws[:, 1:3] - 1.0)
        mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0).to(zoom) if self.flip else torch.ones_like(zoom)
        affine = images.new_zeros(len(images), 2, 3)
        affine[:, 0, 0] = zoom * mirror
        affine[:, 1, 1] = zoom
        affine[:, :, 2] = offset
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
