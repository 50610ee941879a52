"""Ranks as people read them. By itself, because pictures need no more of this package."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def percentiles(values: ArrayLike) -> NDArray[np.float64]:
    """Percentile of each value among the finite ones, ties in their middle: (N,) -> (N,), 0 to 100, else NaN."""
    vector = np.asarray(values, dtype=np.float64)
    found = np.full(vector.shape, np.nan)
    finite = np.isfinite(vector)
    if finite.any():
        found[finite] = 100.0 * (stats.rankdata(vector[finite]) - 0.5) / finite.sum()
    return found
