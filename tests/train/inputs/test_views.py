"""Random views: identities, and one element checked by hand."""

from __future__ import annotations

import torch
from torch import Tensor

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


def test_noise_has_its_deviation_and_follows_the_generator() -> None:
    images = torch.zeros(4, 1, 32, 32)
    first, second = (view(images, RandomView(noise=0.5), torch.rand(4, 4)) for _ in range(2))
    assert torch.equal(first, second)
    assert abs(float(first.std()) - 0.5) < 0.02
