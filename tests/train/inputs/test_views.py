"""Random views: identities, and one element checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as F

from jepa_train.errors import ConfigurationError
from jepa_train.inputs.views import RandomView


def view(images: Tensor, settings: RandomView, draws: Tensor) -> Tensor:
    return settings(images, draws=draws, noise_generator=torch.Generator().manual_seed(0))


def test_default_is_the_image_itself() -> None:
    assert RandomView().is_identity
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(view(images, RandomView(), torch.rand(2, 4)), images)


def test_flip_mirrors_half() -> None:
    images = torch.rand(2, 1, 8, 8)
    draws = torch.tensor([[0.0, 0.5, 0.5, 0.1], [0.0, 0.5, 0.5, 0.9]])
    flipped = view(images, RandomView(flip=True), draws)
    torch.testing.assert_close(flipped[0], images[0].flip(-1), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(flipped[1], images[1], atol=1e-5, rtol=0.0)


def test_shift_moves_by_a_share_of_the_side() -> None:
    images = torch.rand(1, 1, 8, 8)
    moved = view(images, RandomView(shift=0.25), torch.tensor([[0.0, 1.0, 0.5, 0.0]]))
    torch.testing.assert_close(moved[..., :-2], images[..., 2:], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(moved[..., -1], images[..., -1], atol=1e-5, rtol=0.0)


def test_crop_stays_inside() -> None:
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    for corner in (0.0, 1.0):
        cropped = view(ramp, RandomView(crop_scale=0.25), torch.tensor([[0.0, corner, 0.5, 0.0]]))
        expected = torch.linspace(0, 1, 16)[0 if corner == 0.0 else 15]
        torch.testing.assert_close(cropped[0, 0, 8, 0 if corner == 0.0 else 15], expected, atol=0.04, rtol=0.0)
        assert float(cropped.max() - cropped.min()) < 0.55


def test_a_local_view_shows_a_part_of_the_image_in_a_size_of_its_own() -> None:
    ramp = torch.linspace(-1, 1, 33)[1::2].double().expand(2, 1, 16, 16)  # centres of 16 pixels
    draws = torch.tensor([[0.0, 0.5, 0.5, 0.0], [1.0, 0.5, 0.5, 0.0]]).double()
    local = view(ramp, RandomView(crop_scale=0.0625, largest_crop=0.25, size=4), draws)
    assert local.shape == (2, 1, 4, 4)
    spread = local[:, 0, 0, 3] - local[:, 0, 0, 0]  # three quarters of the side, and an image is 2 wide
    torch.testing.assert_close(spread, 0.75 * 2 * torch.tensor([0.25, 0.5]).double())
    whole = RandomView(size=8)
    torch.testing.assert_close(view(ramp, whole, draws), torch.nn.functional.avg_pool2d(ramp, 2))
    assert not whole.is_identity


def test_noise_has_its_deviation_and_follows_the_generator() -> None:
    images = torch.zeros(4, 1, 32, 32)
    first, second = (view(images, RandomView(noise=0.5), torch.rand(4, 4)) for _ in range(2))
    assert torch.equal(first, second)
    assert abs(float(first.std()) - 0.5) < 0.02


def test_brightness_and_contrast_are_the_formula_written_out() -> None:
    images, draws = torch.randn(5, 3, 8, 8).double(), torch.rand(5, 7).double()
    changed = view(images, RandomView(brightness=0.3, contrast=0.6), draws)
    for image, found, numbers in zip(images, changed, draws, strict=True):
        _, _, _, _, _, of_brightness, of_contrast = (2 * numbers - 1).tolist()
        lit = image.min() + (1 + 0.3 * of_brightness) * (image - image.min())
        torch.testing.assert_close(found, lit.mean() + (1 + 0.6 * of_contrast) * (lit - lit.mean()))


def test_hue_is_a_turn_around_grey_and_saturation_the_distance_from_it() -> None:
    """Seen by scipy's rotations: of half a turn at the most, and to twice the distance."""
    images, draws = torch.rand(6, 3, 4, 4).double(), torch.rand(6, 9).double()
    changed = view(images, RandomView(saturation=0.5, hue=0.5), draws)
    for image, found, numbers in zip(images, changed, draws, strict=True):
        of_saturation, of_hue = (2 * numbers[7:] - 1).tolist()
        turn = Rotation.from_rotvec(np.ones(3) / np.sqrt(3.0) * np.pi * of_hue)
        grey = image.mean(0, keepdim=True).expand(3, -1, -1)
        expected = grey + (1 + 0.5 * of_saturation) * torch.from_numpy(
            turn.as_matrix() @ (image - grey).flatten(1).numpy()
        ).view(3, 4, 4)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found.mean(0), image.mean(0))


def test_colors_of_images_without_any_are_named() -> None:
    with pytest.raises(
        ConfigurationError, match="saturation and hue change the colors of RGB images, and these have 1 channel: "
    ):
        view(torch.rand(2, 1, 4, 4), RandomView(hue=0.1), torch.rand(2, 9))


@pytest.mark.parametrize("size", [None, 5])
def test_a_crop_is_the_affine_map_of_the_image(size: int | None) -> None:
    settings = RandomView(crop_scale=0.3, largest_crop=0.9, shift=0.1, flip=True, size=size)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 2, 8, 12, dtype=torch.float64, generator=generator)
    draws = torch.rand(6, 4, dtype=torch.float64, generator=generator)
    side = (0.3 + 0.6 * draws[:, 0]).sqrt()
    affine = torch.zeros(6, 2, 3, dtype=torch.float64)
    affine[:, 0, 0] = torch.where(draws[:, 3] < 0.5, -side, side)
    affine[:, 1, 1] = side
    affine[:, :, 2] = (1.0 - side + 0.2).unsqueeze(1) * (2.0 * draws[:, 1:3] - 1.0)
    grid = F.affine_grid(affine, [6, 2, size or 8, size or 12], align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(view(images, settings, draws), expected, atol=1e-12, rtol=0.0)


def test_a_crop_has_its_area_and_its_aspect() -> None:
    """Seen from images that show their own coordinates: steps from pixel to pixel are the sides of the crop."""
    ramp = torch.linspace(-1, 1, 17)[1::2].double()  # centres of 8 pixels
    images = torch.stack([ramp.expand(8, 8), ramp.view(8, 1).expand(8, 8)]).expand(64, -1, -1, -1)
    draws = torch.rand(64, 7).double()
    draws[:, 1:3] = 0.5  # in the middle
    crops = view(images, RandomView(crop_scale=0.1, crop_aspect=2.0), draws)
    width = (crops[:, 0, 4, 4] - crops[:, 0, 4, 3]) / 0.25
    height = (crops[:, 1, 4, 4] - crops[:, 1, 3, 4]) / 0.25
    area = 0.1 + 0.9 * draws[:, 0]
    torch.testing.assert_close(width * height, area)
    assert bool((torch.maximum(width, height) <= 1.0 + 1e-9).all())
    small = area <= 0.5  # which have room for every aspect
    torch.testing.assert_close((width / height)[small].log2(), (2 * draws[:, 4] - 1)[small])
    assert float((width / height).amax()) > 1.5
    assert float((width / height).amin()) < 1 / 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brightness": -0.1}, "brightness, the largest relative change, must lie between 0 and 1, got -0.1"),
        ({"contrast": float("nan")}, "contrast, the largest relative change, must lie between 0 and 1, got nan"),
        ({"contrast": 1.5}, "contrast, the largest relative change, must lie between 0 and 1, got 1.5"),
        ({"saturation": 1.5}, "saturation, the largest relative change, must lie between 0 and 1, got 1.5"),
        ({"hue": 0.6}, "hue, the largest share of a whole turn, must lie between 0 and 0.5, got 0.6"),
        ({"hue": float("nan")}, "hue, the largest share of a whole turn, must lie between 0 and 0.5, got nan"),
        ({"crop_scale": 0.5, "crop_aspect": 0.5}, "crop_aspect must be 1 or more"),
    ],
)
def test_views_that_cannot_be_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RandomView(**settings)
