"""Rank correlations that say when they have no meaning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def why_unrankable(scores: ArrayLike) -> str | None:
    """The reason why scores cannot be ranked, or ``None`` if they can."""
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        return f"only {len(values)} sample"
    bad = int((~np.isfinite(values)).sum())
    if bad:
        return f"{bad} of {len(values)} values are not finite"
    if values.min() == values.max():
        return "all values are equal"
    return None


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation with ties at their mean rank; NaN if either side cannot be ranked."""
    if why_unrankable(a) or why_unrankable(b):
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b in O(N log N); NaN if either side cannot be ranked."""
    if why_unrankable(a) or why_unrankable(b):
        return math.nan
    return float(stats.kendalltau(a, b).statistic)
