"""Mardia's multivariate skewness and kurtosis (1970, Biometrika 57), with their moments for finite N (1974)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cloud import Cloud, count_axes, gaussian_white

NULL_DRAWS = 256
NULL_SAMPLES = 1024


class Mardia(NamedTuple):
    """Standard deviations away from a Gaussian: 0 +- 1 for one. NaN where there are too few samples or no axis."""

    skewness_z: float
    kurtosis_z: float


class MardiaNull(NamedTuple):
    """Mean and standard deviation under a Gaussian of skewness and kurtosis."""

    skewness: float
    skewness_sd: float
    kurtosis: float
    kurtosis_sd: float


def mardia(z: Tensor | Cloud) -> Mardia:
    """Third and fourth moments of (N, K) embeddings, whitened along at most 64 principal axes.

    With whitened w (covariance divided by N): skewness = mean_ij (w_i . w_j)^3, kurtosis = mean_i ||w_i||^4, each
    less its mean and over its standard deviation for that N and number of axes. Unchanged by affine maps while all
    axes are kept.
    """
    white = Cloud.of(z).white
    n, axes = white.shape
    null = mardia_null(n, axes)
    if not axes:
        return Mardia(math.nan, math.nan)
    kurtosis = float(white.square().sum(1).square().mean())
    return Mardia(
        _standardised(_skewness(white), null.skewness, null.skewness_sd),
        _standardised(kurtosis, null.kurtosis, null.kurtosis_sd),
    )


def mardia_null(n: int, k: int) -> MardiaNull:
    """Moments of skewness and kurtosis under a Gaussian; all exact but the skewness' deviation, drawn, to 8 %.

    Chi^2 theory (mean K (K + 1) (K + 2) / N) is off by 0.9 standard deviations at N = 512, K = 64. NaN without axes.
    """
    a = count_axes(n, k)
    if not a:
        return MardiaNull(math.nan, math.nan, math.nan, math.nan)
    skewness = a * (a + 2) * ((n + 1) * (a + 1) - 6) / ((n + 1) * (n + 3))
    kurtosis = a * (a + 2) * (n - 1) / (n + 1)
    variance = 8 * a * (a + 2) * (n - 3) * (n - a - 1) * (n - a + 1) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    drawn = min(n, NULL_SAMPLES)
    return MardiaNull(skewness, _skewness_sd(drawn, a) * drawn / n, kurtosis, math.sqrt(variance))


@lru_cache(maxsize=256)
def _skewness_sd(n: int, axes: int) -> float:
    generator = Generator().manual_seed(0)
    with torch.autocast("cpu", enabled=False):  # or the draws of a bf16 run would be cached for all others
        drawn = [_skewness(gaussian_white(n, axes, generator=generator)) for _ in range(NULL_DRAWS)]
    return float(torch.tensor(drawn, dtype=torch.float64).std())


def _skewness(white: Tensor) -> float:
    """mean_ij (w_i . w_j)^3 = ||mean_i w_i x w_i x w_i||^2, whichever side is smaller."""
    n, axes = white.shape
    if n <= axes**2:
        return sum(float((part @ white.T).pow(3).sum()) for part in white.split(128)) / n**2
    third = white.new_zeros(axes**2, axes)
    for part in white.split(256):
        third += (part.unsqueeze(2) * part.unsqueeze(1)).flatten(1).T @ part
    return float(third.square().sum()) / n**2


def _standardised(value: float, mean: float, sd: float) -> float:
    return (value - mean) / sd if sd > 0.0 else math.nan
