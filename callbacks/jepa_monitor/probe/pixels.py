"""Inputs as vectors of few numbers, where distances between them mean something, and their principal components."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..gaussianity.cloud import as_float64, principal_axes

MOST_PIXELS = 1024  # numbers a sample
COMPONENTS = 32  # that features are asked for
FEWEST_SAMPLES, SAMPLES_A_COMPONENT = 16, 4  # what fewer samples know of each other is chance
SMALLEST_VARIANCE = 1e-6  # of a component, relative to the largest


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


def principal_components(inputs: Tensor, *, most: int = COMPONENTS) -> Tensor:
    """First principal components of inputs, each of unit variance, so that a faint one counts as much as a strong one.

    Args:
        inputs: (N, D).
        most: most components; there is one for every four finite samples, and none without variance.

    Returns:
        (N, C) in float64, NaN for samples that are not finite; C is 0 where they do not vary or are fewer than 16.
    """
    inputs = as_float64(inputs)
    finite = torch.isfinite(inputs).all(1)
    known = inputs[finite]
    most = min(most, len(known) // SAMPLES_A_COMPONENT)
    if len(known) < FEWEST_SAMPLES:
        return inputs.new_empty(len(inputs), 0)
    variances, axes = principal_axes(known - known.mean(0))
    largest = (SMALLEST_VARIANCE * known.abs().amax()) ** 2  # below it is rounding
    there = (variances > max(SMALLEST_VARIANCE * float(variances[-1]), float(largest))).nonzero().flatten()[-most:]
    components = inputs.new_full((len(inputs), len(there)), math.nan)
    components[finite] = (known - known.mean(0)) @ axes[:, there] / variances[there].sqrt()
    return components
