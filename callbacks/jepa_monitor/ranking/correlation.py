"""Rank correlations that say when they have no meaning.

Scores come as tensors, arrays or lists of N values. A statistic is NaN where :func:`why_unrankable` gives a reason
for one of its sides, never 0; lengths that differ are a ``ValueError``. All but :func:`slope` are by ranks: no
increasing transform of the scores changes them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor


def as_vector(values: ArrayLike, name: str = "scores") -> NDArray[np.float64]:
    """Values in float64, (N,), from any device and with or without gradient.

    Raises:
        ValueError: unless they have one dimension.
    """
    # numpy knows neither bfloat16 nor CUDA
    plain = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else values
    vector = np.asarray(plain, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {vector.shape}.")
    return vector


def as_vectors(**named: ArrayLike) -> list[NDArray[np.float64]]:
    """Several values of the same samples, each (N,) in float64.

    Raises:
        ValueError: unless each has one dimension and all have one length.
    """
    vectors = {name: as_vector(values, name) for name, values in named.items()}
    if len({len(vector) for vector in vectors.values()}) > 1:
        lengths = ", ".join(f"{len(vector)} {name}" for name, vector in vectors.items())
        raise ValueError(f"the values must belong to the same samples, got {lengths}.")
    return list(vectors.values())


def why_unrankable(scores: ArrayLike) -> str | None:
    """The reason why scores cannot be ranked, or ``None`` if they can."""
    values = as_vector(scores)
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
    first, second = as_vectors(a=a, b=b)
    if why_unrankable(first) or why_unrankable(second):
        return math.nan
    return _cosine(_centred_ranks(first), _centred_ranks(second))


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b in O(N log N); NaN if either side cannot be ranked."""
    first, second = as_vectors(a=a, b=b)
    if why_unrankable(first) or why_unrankable(second):
        return math.nan
    return float(stats.kendalltau(first, second).statistic)


def concordance(scores: ArrayLike, truth: ArrayLike) -> float:
    """Harrell's index: the share of pairs of different truth that the scores put in the same order.

    Pairs of equal score count half, so chance is 0.5. With P the number of pairs that differ,
    ``1/2 (1 + tau_b sqrt(P(scores) / P(truth)))``, in O(N log N).

    Returns:
        0 to 1; NaN if either side cannot be ranked.
    """
    values, true_values = as_vectors(scores=scores, truth=truth)
    tau = kendall(values, true_values)
    if math.isnan(tau):
        return math.nan
    return 0.5 + 0.5 * tau * math.sqrt(_pairs_that_differ(values) / _pairs_that_differ(true_values))


def slope(scores: ArrayLike, truth: ArrayLike) -> float:
    """Least-squares slope of the scores on the truth, in nats per nat: 1 for a log density right up to a constant.

    The one statistic here that is not by ranks: it sees the scale of the scores, and outliers move it.

    Returns:
        Any number; NaN if either side cannot be ranked.
    """
    values, true_values = as_vectors(scores=scores, truth=truth)
    if why_unrankable(values) or why_unrankable(true_values):
        return math.nan
    deviation = true_values - true_values.mean()
    scale = np.abs(deviation).max()  # before squaring: squares of small deviations can vanish
    unit = deviation / scale
    return float((unit @ (values - values.mean())) / (unit @ unit) / scale)


def partial_spearman(a: ArrayLike, b: ArrayLike, *, given: ArrayLike) -> float:
    """Spearman's correlation of a and b given a third: the correlation of what ``given`` leaves of their ranks.

    ``(r_ab - r_ac r_bc) / sqrt((1 - r_ac^2)(1 - r_bc^2))`` with c for ``given``, computed from the residuals of the
    ranks because 1 - r^2 cancels where r is near 1.

    Returns:
        -1 to 1; NaN if one of the three cannot be ranked, or ``given`` has the order of a or b, or its reverse: then
        nothing is left to correlate.
    """
    vectors = as_vectors(a=a, b=b, given=given)
    if any(why_unrankable(vector) for vector in vectors):
        return math.nan
    first, second, third = (_centred_ranks(vector) for vector in vectors)
    if any(np.array_equal(ranks, sign * third) for ranks in (first, second) for sign in (1.0, -1.0)):
        return math.nan
    return _cosine(_residual(first, third), _residual(second, third))


def rank_stability(earlier: ArrayLike, later: ArrayLike) -> float:
    """Spearman's correlation between the scores of the same samples, in the same order, at two measurements.

    By ranks because raw scores of two checkpoints cannot be compared: scaling an embedding of size K by c adds
    K log c to each.

    Returns:
        -1 to 1; NaN if either measurement cannot be ranked.
    """
    before, after = as_vectors(earlier=earlier, later=later)
    return spearman(before, after)


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks: NDArray[np.float64] = stats.rankdata(values) - (len(values) + 1) / 2
    return ranks


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.clip((a @ b) / math.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _residual(values: NDArray[np.float64], explaining: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - (values @ explaining) / (explaining @ explaining) * explaining


def _pairs_that_differ(values: NDArray[np.float64]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((len(values) ** 2 - (counts**2).sum()) // 2)
