"""Random views of a batch: crop, shift and flip in one resampling; then colors, intensities and pixel noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from jepa_train.errors import ConfigurationError, check_at_least, counted

PLACES = 4  # random numbers of crop, shift and flip; those of what came later follow them
AMOUNTS = 3  # of the aspect, the brightness and the contrast
COLORS = 2  # of saturation and hue
RGB = 3  # channels


@dataclass(frozen=True)
class RandomView:
    """Augmentation of whole batches, on their device.

    Attributes:
        crop_scale: smallest share of the area that a crop keeps; 1 keeps all.
        largest_crop: largest share of the area that a crop keeps.
        size: height and width of a view, in pixels; ``None`` keeps those of the image.
        shift: largest shift, as a share of the image side.
        flip: mirror left and right with probability one half.
        noise: standard deviation of white noise added to every pixel.
        brightness: largest relative change of a view's distances from its own darkest value, from 0 to 1.
        contrast: largest relative change of a view's deviations from its own mean, from 0 to 1.
        crop_aspect: largest ratio of width to height of a crop, and of height to width; 1 keeps that of the image. It
            changes no area: a crop of nearly the whole image has nearly the image's ratio.
        saturation: largest relative change of the pixels' distances from their own grey, from 0 to 1; of RGB images.
        hue: largest turn of the colors around grey, as a share of a whole turn, from 0 to 0.5; of RGB images.

    Raises:
        ConfigurationError: for a number out of its range.
    """

    crop_scale: float = 1.0
    largest_crop: float = 1.0
    size: int | None = None
    shift: float = 0.0
    flip: bool = False
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    crop_aspect: float = 1.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.crop_scale <= 1.0:
            raise ConfigurationError(
                "crop_scale, the smallest share of an image's area that a crop keeps, must be above 0 and at most 1, "
                f"got {self.crop_scale}."
            )
        check_at_least(0, shift=self.shift, noise=self.noise)
        for name in ("brightness", "contrast", "saturation"):
            if not 0.0 <= (amount := getattr(self, name)) <= 1.0:
                raise ConfigurationError(
                    f"{name}, the largest relative change, must lie between 0 and 1, got {amount}."
                )
        if not 0.0 <= self.hue <= 0.5:
            raise ConfigurationError(
                f"hue, the largest share of a whole turn, must lie between 0 and 0.5, got {self.hue}."
            )
        check_at_least(1, crop_aspect=self.crop_aspect)

    @property
    def moves(self) -> bool:
        """True if the same place of two views need not show the same."""
        return self.crop_scale < 1.0 or self.shift > 0.0 or self.flip

    @property
    def is_identity(self) -> bool:
        """True if a view is the image itself."""
        return self == RandomView()

    @property
    def recolors(self) -> bool:
        """True if colors change, which RGB images alone have."""
        return self.saturation > 0.0 or self.hue > 0.0

    @property
    def num_draws(self) -> int:
        """Random numbers of each image; those of intensities, aspect and colors are drawn where one of them is used."""
        if self.recolors:
            return PLACES + AMOUNTS + COLORS
        used = self.brightness > 0.0 or self.contrast > 0.0 or self.crop_aspect > 1.0
        return PLACES + AMOUNTS * used

    def __call__(self, images: Tensor, *, draws: Tensor, noise_generator: Generator) -> Tensor:
        """Make one view of each image.

        Args:
            images: (B, C, H, W).
            draws: (B, num_draws) uniform random numbers that decide crop, shifts and flip, then aspect, brightness,
                contrast, saturation and hue.
            noise_generator: generator on the device of the images.

        Returns:
            (B, C, H, W), or (B, C, size, size); pixels beyond the border repeat it.
        """
        draws = draws.to(images.device, images.dtype)
        if self.moves or self.size is not None:
            images = self._resample(images, draws)
        if self.recolors:
            images = self._change_colors(images, 2.0 * draws[:, PLACES + AMOUNTS :][:, :COLORS] - 1.0)
        if self.brightness > 0.0 or self.contrast > 0.0:
            images = self._change_intensity(images, 2.0 * draws[:, PLACES + 1 : PLACES + AMOUNTS] - 1.0)
        if self.noise > 0.0:
            images = images + self.noise * torch.randn(
                images.shape, generator=noise_generator, device=images.device, dtype=images.dtype
            )
        return images

    def _resample(self, images: Tensor, draws: Tensor) -> Tensor:
        sides = self._sides(draws)
        # a crop may lie anywhere inside the image, and the shift moves it further; coordinates run from -1 to 1
        reach = 1.0 - sides + 2.0 * self.shift
        offset = reach * (2.0 * draws[:, 1:3] - 1.0)
        mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0).to(sides) if self.flip else 1.0
        across, down = sides[:, 0] * mirror, sides[:, 1]
        height, width = images.shape[-2:] if self.size is None else (self.size, self.size)
        # crops stay upright, so columns and rows have a coordinate each: affine_grid multiplies matrices for each pixel
        columns = offset[:, :1] + across.unsqueeze(1) * _centres(width, images)
        rows = offset[:, 1:] + down.unsqueeze(1) * _centres(height, images)
        places = (columns.unsqueeze(1).expand(-1, height, -1), rows.unsqueeze(2).expand(-1, -1, width))
        grid = torch.stack(places, dim=-1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _sides(self, draws: Tensor) -> Tensor:
        """(B, 2) width and height of crops, as shares of the image's."""
        area = self.crop_scale + (self.largest_crop - self.crop_scale) * draws[:, 0]
        sides = area.sqrt().unsqueeze(1).expand(-1, 2)
        if self.crop_aspect == 1.0:
            return sides
        widest = area.reciprocal().clamp_max(self.crop_aspect)  # whose longer side is the image's
        stretch = widest.pow(draws[:, PLACES] - 0.5).unsqueeze(1)  # the root of a ratio that is log-uniform
        return sides * torch.cat([stretch, stretch.reciprocal()], dim=1)

    def _change_colors(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Turn each pixel around the grey axis, and scale its distance from it, by amounts (B, 2) from -1 to 1.

        Grey is the mean of the three channels: an image's mean in each pixel, and so its brightness, stays as it is.
        """
        if images.shape[1] != RGB:
            raise ConfigurationError(
                "saturation and hue change the colors of RGB images, and these have "
                f"{counted(images.shape[1], 'channel')}: set both to 0."
            )
        scale, angle = 1.0 + self.saturation * amounts[:, 0], 2.0 * math.pi * self.hue * amounts[:, 1]
        ones = images.new_ones(RGB, RGB) / RGB
        # the plane of colors is what is left of each channel without grey; the cross product with the axis turns it
        plane = torch.eye(RGB, dtype=images.dtype, device=images.device) - ones
        turned = images.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(RGB)
        along, across = scale * angle.cos(), scale * angle.sin()
        mixed = ones + along.view(-1, 1, 1) * plane + across.view(-1, 1, 1) * turned
        return torch.bmm(mixed, images.flatten(2)).view_as(images)

    def _change_intensity(self, images: Tensor, amounts: Tensor) -> Tensor:
        """Scale distances from each view's darkest value, then from its mean, by amounts (B, 2) from -1 to 1."""
        brightness, contrast = amounts.view(-1, 2, 1, 1, 1).unbind(1)
        exposure, gain = 1.0 + self.brightness * brightness, 1.0 + self.contrast * contrast
        darkest = images.amin((1, 2, 3), keepdim=True)
        mean = images.mean((1, 2, 3), keepdim=True)
        # gain * exposure * image + what keeps the darkest value in its place, then the mean
        kept = darkest * (1.0 - exposure) + (1.0 - gain) * exposure * mean
        return torch.addcmul(kept, images, gain * exposure)


def _centres(count: int, like: Tensor) -> Tensor:
    """Places of ``count`` pixels in a row that runs from -1 to 1, (count,)."""
    return (2.0 * torch.arange(count, dtype=like.dtype, device=like.device) + 1.0) / count - 1.0


def check_views_differ(views: Sequence[RandomView]) -> None:
    """See that views of one image differ, so that there is something to predict.

    Raises:
        ConfigurationError: if all are the image itself.
    """
    if all(view.is_identity for view in views):
        raise ConfigurationError(
            "all views of an image are the same, so there is nothing to predict: set crop_scale, shift, flip, noise, "
            "brightness, contrast, saturation, hue or local_views, or use data that bring a view_b."
        )
