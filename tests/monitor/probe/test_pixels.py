"""Inputs as vectors: large images are shrunk, long inputs have none."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from jepa_monitor.probe.pixels import has_pixels, pixels


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
