"""Inputs as vectors of few numbers, where distances between them mean something."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

MOST_PIXELS = 1024  # numbers a sample


def has_pixels(inputs: Tensor) -> bool:
    """True if distances between (B, ...) inputs mean something: few numbers each, or images, which can be shrunk."""
    is_image = inputs.ndim == 4
    return (inputs.is_floating_point() or is_image) and (is_image or inputs.shape[1:].numel() <= MOST_PIXELS)


def pixels(inputs: Tensor) -> Tensor:
    """(B, D) float32; images with more than 1,024 numbers are shrunk by averaging until they have no more."""
    inputs = inputs.float()
    if inputs[0].numel() > MOST_PIXELS and inputs.ndim == 4:
        height, width = inputs.shape[2:]
        shrink = math.sqrt(MOST_PIXELS / inputs[0].numel())
        size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
        inputs = F.adaptive_avg_pool2d(inputs, size)
    return inputs.flatten(1)
