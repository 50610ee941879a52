"""Raw inputs as features: the line that an encoder has to beat."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

MOST = 1024


def has_pixels(inputs: Tensor) -> bool:
    """Are (B, ...) inputs numbers that distances mean something for, and few enough or images that can be shrunk?"""
    is_image = inputs.ndim == 4
    return (inputs.is_floating_point() or is_image) and (is_image or inputs[0].numel() <= MOST)


def pixels(inputs: Tensor) -> Tensor:
    """(B, D) float32; images with more than 1,024 numbers are shrunk by averaging until they have no more."""
    inputs = inputs.float()
    if inputs[0].numel() > MOST and inputs.ndim == 4:
        height, width = inputs.shape[2:]
        shrink = math.sqrt(MOST / inputs[0].numel())
        size = (max(1, int(height * shrink)), max(1, int(width * shrink)))
        inputs = F.adaptive_avg_pool2d(inputs, size)
    return inputs.flatten(1)
