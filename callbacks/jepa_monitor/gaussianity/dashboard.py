"""All Gaussianity statistics of an embedding cloud at once, as ratios to their null values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .epps_pulley import characteristic_function, epps_pulley, epps_pulley_null, sliced_epps_pulley
from .moments import (
    covariance_error,
    covariance_error_null,
    effective_rank,
    effective_rank_null,
    mardia_kurtosis_z,
    mardia_skewness_z,
    mean_error,
    mean_error_null,
    norm_ks,
    norm_variance,
)

MAX_AXES = 64
NUM_SLICES = 256


@dataclass(frozen=True)
class GaussianityNull:
    """Null values without a closed form, from draws of N(0, I) with a fixed generator.

    Attributes:
        n, k: samples and dimensions they hold for.
        sliced_max: mean of the largest Epps-Pulley statistic over 256 random directions.
        axis_max: the same over the principal axes of the whitened cloud.
    """

    n: int
    k: int
    sliced_max: float
    axis_max: float

    @classmethod
    def draw(cls, n: int, k: int, *, draws: int = 8, seed: int = 0) -> GaussianityNull:
        """Simulate ``draws`` clouds of n samples in k dimensions."""
        generator = torch.Generator().manual_seed(seed)
        sliced, axis = [], []
        for _ in range(draws):
            z = torch.randn(n, k, generator=generator)
            sliced.append(float(sliced_epps_pulley(z, num_slices=NUM_SLICES).max()))
            white = _principal_coordinates(z.double())
            axis.append(math.nan if white is None else _largest_axis_statistic(white))
        return cls(n, k, sliced_max=sum(sliced) / draws, axis_max=sum(axis) / draws)


def gaussianity(z: Tensor, *, null: GaussianityNull | None = None) -> dict[str, float]:
    """Statistics of a cloud; a ratio is 1 for a Gaussian, whatever N and K.

    Args:
        z: (N, K) embeddings. Rows with a non-finite value are left out.
        null: for the number of finite rows and K; drawn here if absent or for another size.

    Returns:
        name to value; NaN where there are too few samples for the statistic or the cloud has no extent.
    """
    z = z[torch.isfinite(z).all(1)].detach().cpu().double()
    n, k = z.shape
    if n == 0:
        return dict.fromkeys(NAMES, math.nan)
    if null is None or (null.n, null.k) != (n, k):
        null = GaussianityNull.draw(n, k)
    sliced = sliced_epps_pulley(z.float())
    white = _principal_coordinates(z)
    values = (
        float(sliced.mean()) / epps_pulley_null(),
        float(sliced.max()) / null.sliced_max,
        math.nan if white is None else _largest_axis_statistic(white) / null.axis_max,
        covariance_error(z) / covariance_error_null(n, k),
        mean_error(z) / mean_error_null(n, k),
        norm_variance(z) / (2.0 * k),
        norm_ks(z),
        math.nan if white is None else mardia_skewness_z(white),
        math.nan if white is None else mardia_kurtosis_z(white),
        effective_rank(z) / effective_rank_null(n, k),
    )
    return dict(zip(NAMES, values, strict=True))


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


def _principal_coordinates(z: Tensor) -> Tensor | None:
    """Whitened coordinates along the first 64 principal axes, (N, <= 64); ``None`` if there are none to speak of."""
    if len(z) <= 2:
        return None
    u, singular, _ = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    kept = int((singular > 1e-7 * singular[0].clamp_min(torch.finfo(z.dtype).tiny)).sum())
    kept = min(kept, MAX_AXES, len(z) - 2)
    return u[:, :kept] * math.sqrt(len(z)) if kept and float(singular[0]) > 0.0 else None


def _largest_axis_statistic(white: Tensor) -> float:
    return float(epps_pulley(characteristic_function(white), float(len(white))).max())
