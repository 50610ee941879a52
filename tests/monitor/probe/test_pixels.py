"""Inputs as vectors: large images are shrunk, long inputs have none."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn import functional as F

from jepa_monitor.probe.pixels import has_pixels, pixels, principal_components


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 33, 32), (3, 20, 90), (2000, 2, 2)])
def test_large_images_are_averaged_down(shape: tuple[int, int, int]) -> None:
    image = torch.rand(2, *shape)
    assert has_pixels(image)
    small = pixels(image)
    assert small.shape[1] <= max(1024, shape[0])
    if shape == (3, 64, 64):
        torch.testing.assert_close(small, F.adaptive_avg_pool2d(image, 18).flatten(1))


def test_small_inputs_are_taken_as_they_are() -> None:
    image = torch.rand(2, 1, 28, 28)
    assert torch.equal(pixels(image), image.flatten(1))
    assert has_pixels(torch.rand(2, 1024))
    assert not has_pixels(torch.rand(2, 1025))
    assert not has_pixels(torch.zeros(2, 16, dtype=torch.long))  # tokens


def test_components_are_scikit_learns_of_unit_variance() -> None:
    inputs = torch.randn(60, 9) * torch.arange(1, 10)
    found = principal_components(inputs, most=4)
    expected = PCA(4, whiten=True).fit_transform(inputs.double().numpy())
    torch.testing.assert_close(found.flip(1).abs(), torch.from_numpy(expected).abs(), rtol=1e-4, atol=1e-6)


def test_samples_that_are_not_finite_have_none_and_change_none() -> None:
    inputs = torch.randn(60, 9)
    with_nan = torch.cat([inputs[:20], inputs[:1] / 0.0, inputs[20:]])
    found = principal_components(with_nan)
    assert torch.isnan(found[20]).all()
    torch.testing.assert_close(found[torch.arange(61) != 20], principal_components(inputs))


@pytest.mark.parametrize(("count", "most"), [(15, 0), (16, 4), (40, 10), (200, 32)])
def test_there_is_a_component_for_every_four_samples(count: int, most: int) -> None:
    assert principal_components(torch.randn(count, 64)).shape == (count, most)
    assert principal_components(torch.ones(count, 64)).shape == (count, 0)
