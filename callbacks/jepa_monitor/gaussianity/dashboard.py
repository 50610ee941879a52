"""All Gaussianity statistics of an embedding cloud at once, as ratios to their null values."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from .characteristic import (
    axis_epps_pulley,
    axis_epps_pulley_max_null,
    sliced_epps_pulley,
    sliced_epps_pulley_max_null,
    sliced_epps_pulley_null,
)
from .cloud import Cloud
from .dimension import effective_rank, effective_rank_null
from .moments import covariance_error, covariance_error_null, mardia, mean_error, mean_error_null, norm_concentration

NAMES = (
    "sliced_ep_ratio",
    "sliced_ep_ratio_max",
    "axis_ep_ratio_max",
    "covariance_error_ratio",
    "mean_error_ratio",
    "norm_variance_ratio",
    "norm_ks",
    "skewness_z",
    "kurtosis_z",
    "effective_rank_ratio",
)


def gaussianity_statistics(z: Tensor | Cloud, *, num_slices: int = 256, seed: int = 0) -> dict[str, float]:
    """Statistics of a cloud; a ratio is 1 for N(0, I), whatever N and K, and a z is 0 +- 1.

    The null values that have no closed form are drawn at the first call for an N and K, which takes about a second.

    Args:
        z: (N, K) embeddings. Rows with a non-finite value are left out, with a warning.
        num_slices: random directions of the sliced statistic.
        seed: of these directions.

    Returns:
        name to value; NaN where there are too few samples for the statistic or the cloud has no extent.
    """
    cloud = Cloud.of(z)
    n, k = cloud.n, cloud.k
    if n == 0:
        rank_zero_warn("There are no finite embeddings: every statistic of their Gaussianity is NaN.")
        return dict.fromkeys(NAMES, math.nan)
    sliced = sliced_epps_pulley(cloud, num_slices=num_slices, seed=seed)
    norm, moments = norm_concentration(cloud), mardia(cloud)
    values = (
        float(sliced.mean()) / sliced_epps_pulley_null(n, k),
        float(sliced.max()) / sliced_epps_pulley_max_null(n, k, num_slices=num_slices),
        float(axis_epps_pulley(cloud).max()) / axis_epps_pulley_max_null(n, cloud.white.shape[1]),
        covariance_error(cloud) / covariance_error_null(n, k),
        mean_error(cloud) / mean_error_null(n, k),
        norm.variance_ratio,
        norm.ks,
        moments.skewness_z,
        moments.kurtosis_z,
        effective_rank(cloud) / effective_rank_null(n, k),
    )
    return dict(zip(NAMES, values, strict=True))
