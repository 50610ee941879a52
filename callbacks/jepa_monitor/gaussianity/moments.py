"""Moments of an embedding cloud, first to fourth, and its squared norms, beside their values under N(0, I).

N samples, K dimensions. A statistic without meaning (too few samples) is NaN. Skewness and kurtosis are Mardia's (1970,
Biometrika 57), with their moments for finite N (1974).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cloud import Cloud, count_axes, gaussian_white

NULL_DRAWS = 256
NULL_SAMPLES = 1024


def mean_error(z: Tensor | Cloud) -> float:
    """Squared length of the mean, ||mean z||^2 >= 0, of (N, K) embeddings; NaN without samples."""
    return float(Cloud.of(z).z.mean(0).square().sum())


def mean_error_null(n: int, k: int) -> float:
    """Mean of :func:`mean_error` under N(0, I): K / N."""
    return k / n if n else math.nan


def covariance_error(z: Tensor | Cloud) -> float:
    """||C - I||_F^2 / K >= 0 with the unbiased covariance C of (N, K) embeddings; 1 for a constant cloud.

    NaN for fewer than two samples.
    """
    cloud = Cloud.of(z)
    if cloud.n < 2:
        return math.nan
    covariance = cloud.gram / (cloud.n - 1)
    # of the smaller side; the eigenvalues that it lacks are 0, and each of them is 1 away from I
    error = (covariance - torch.eye(len(covariance)).to(covariance)).square().sum()
    return (float(error) + cloud.k - len(covariance)) / cloud.k


def covariance_error_null(n: int, k: int) -> float:
    """Mean of :func:`covariance_error` under N(0, I): (K + 1) / (N - 1).

    An entry of C has variance 1 / (N - 1), on the diagonal 2 / (N - 1).
    """
    return (k + 1) / (n - 1) if n > 1 else math.nan


class NormConcentration(NamedTuple):
    """Squared norms compared with chi^2_K.

    Attributes:
        variance_ratio: variance of ||z||^2 over 2 K; 0 on a sphere, NaN for fewer than two samples.
        ks: sqrt(N) times the Kolmogorov-Smirnov distance, in (0, sqrt(N)]; NaN without samples.
    """

    variance_ratio: float
    ks: float


def norm_concentration(z: Tensor | Cloud) -> NormConcentration:
    """Compare ||z||^2 of (N, K) embeddings, not centred and not whitened, with its law under N(0, I), chi^2_K."""
    cloud = Cloud.of(z)
    squared, n = cloud.squared_norms, cloud.n
    if n == 0:
        return NormConcentration(math.nan, math.nan)
    # shifted first: the variance of equal numbers is then 0 and not their rounding
    variance = float((squared - squared[0]).var()) if n > 1 else math.nan
    below = torch.special.gammainc(torch.full_like(squared, cloud.k / 2.0), squared.sort().values / 2.0)
    steps = torch.arange(n + 1).to(squared) / n
    distance = float(torch.maximum(steps[1:] - below, below - steps[:-1]).max())
    return NormConcentration(variance / (2.0 * cloud.k), math.sqrt(n) * distance)


def norm_concentration_null(n: int, k: int) -> NormConcentration:
    """Means of :func:`norm_concentration` under N(0, I), for any K: 1 exactly, and Kolmogorov's to 0.004 from N = 10.

    sqrt(pi / 2) log 2 - 1 / (6 sqrt(N)) = 0.869 - 1 / (6 sqrt(N)), with a standard deviation of 0.26.
    """
    del k
    ks = math.sqrt(math.pi / 2.0) * math.log(2.0) - 1.0 / (6.0 * math.sqrt(n)) if n else math.nan
    return NormConcentration(1.0 if n > 1 else math.nan, ks)


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
