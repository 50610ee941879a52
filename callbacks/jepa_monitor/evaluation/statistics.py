"""How far features spread, and in how many directions."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from ..gaussianity.cloud import as_float64
from ..gaussianity.dimension import effective_rank, effective_rank_null
from .meaning import is_constant


def feature_statistics(z: Tensor) -> dict[str, float]:
    """Statistics of (N, K) finite features, N at least 2.

    Returns:
        ``std_mean`` and ``std_min``: standard deviation over the samples, mean and smallest of the K;
        ``std_l2_normalised_ratio``: mean standard deviation of z / ||z|| times sqrt(K) (SimSiam, arXiv 2011.10566), 1
        for an isotropic cloud around 0 and 0 after a collapse to a point; ``rank_ratio``: effective rank (RankMe) over
        its value under N(0, I), 1 for an isotropic Gaussian and NaN where features do not spread.
    """
    z = as_float64(z)
    n, k = z.shape
    spread = z.std(0)
    return {
        "std_mean": float(spread.mean()),
        "std_min": float(spread.min()),
        "std_l2_normalised_ratio": float(F.normalize(z, dim=1).std(0).mean()) * math.sqrt(k),
        "rank_ratio": math.nan if is_constant(z) else effective_rank(z) / effective_rank_null(n, k),
    }
