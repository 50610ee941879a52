"""Second and higher moments of an embedding cloud, each with its value under N(0, I).

N samples, K dimensions. Statistics are plain floats; a statistic without meaning (too few samples, a constant cloud)
is NaN.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor


def mean_error(z: Tensor) -> float:
    """||mean z||^2; K / N under N(0, I)."""
    return float(z.mean(0).square().sum())


def mean_error_null(n: int, k: int) -> float:
    """Expectation of :func:`mean_error` under N(0, I)."""
    return k / n


def covariance_error(z: Tensor) -> float:
    """||C - I||_F^2 / K with the sample covariance C (N - 1); NaN for one sample."""
    if len(z) < 2:
        return math.nan
    k = z.shape[1]
    covariance = torch.cov(z.T).reshape(k, k)
    return float((covariance - torch.eye(k).to(z)).square().sum() / k)


def covariance_error_null(n: int, k: int) -> float:
    """Expectation of :func:`covariance_error` under N(0, I): (K + 1) / (N - 1)."""
    return (k + 1) / (n - 1) if n > 1 else math.nan


def effective_rank(z: Tensor) -> float:
    """RankMe (arXiv 2210.02885) of the centred cloud: exp of the entropy of its normalised singular values."""
    singular = torch.linalg.svdvals(z - z.mean(0))
    total = singular.sum()
    if not float(total) > 0.0:
        return math.nan
    shares = singular / total
    return float(torch.exp(torch.special.entr(shares).sum()))


def effective_rank_null(n: int, k: int) -> float:
    """About K exp(-K / 8N) under N(0, I), for N > K."""
    return k * math.exp(-k / (8 * n))


def norm_variance(z: Tensor) -> float:
    """Variance of ||z||^2; 2 K under N(0, I); NaN for one sample."""
    return float(z.square().sum(1).var()) if len(z) > 1 else math.nan


def norm_ks(z: Tensor) -> float:
    """sqrt(N) times the Kolmogorov-Smirnov distance of ||z||^2 from chi^2_K; 0.82 +- 0.25 under N(0, I)."""
    squared = np.sort(z.square().sum(1).double().cpu().numpy())
    n = len(squared)
    below = stats.chi2.cdf(squared, df=z.shape[1])
    steps = np.arange(n + 1) / n
    return float(math.sqrt(n) * np.maximum(steps[1:] - below, below - steps[:-1]).max())


def mardia_skewness_z(white: Tensor) -> float:
    """Mardia's skewness of a whitened cloud in standard deviations of its null.

    N / 6 mean_ij (z_i . z_j)^3 is chi^2 with K (K + 1) (K + 2) / 6 degrees of freedom under a Gaussian.
    """
    n, k = white.shape
    skewness = n / 6.0 * float((white @ white.T).pow(3).mean())
    freedom = k * (k + 1) * (k + 2) / 6.0
    return (skewness - freedom) / math.sqrt(2.0 * freedom)


def mardia_kurtosis_z(white: Tensor) -> float:
    """Mardia's kurtosis mean ||z||^4 of a whitened cloud in standard deviations of its null.

    Mean K (K + 2) (N - 1) / (N + 1), variance 8 K (K + 2) / N under a Gaussian.
    """
    n, k = white.shape
    kurtosis = float(white.square().sum(1).square().mean())
    expected = k * (k + 2) * (n - 1) / (n + 1)
    return (kurtosis - expected) / math.sqrt(8.0 * k * (k + 2) / n)
