"""First and second moments of an embedding cloud, and of its squared norms, beside their values under N(0, I).

N samples, K dimensions. A statistic without meaning (too few samples) is NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .cloud import Cloud


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
    """How the squared norms compare with chi^2_K.

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
