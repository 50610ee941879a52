"""Separation of two sets of samples by their scores: all by ranks, with ties right.

The positive set comes first and is expected to score higher. With scores that are higher where a sample is more
typical, ``f(inside, outside)`` has the in-distribution as the positive class and ``f(-outside, -inside)`` the
out-of-distribution. ``torchmetrics``' curves squash scores outside [0, 1] through a sigmoid, which ties large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..errors import require_whole
from .correlation import as_vector, as_vectors, why_unrankable


def auroc(higher: ArrayLike, lower: ArrayLike) -> float:
    """Probability that a score of ``higher`` exceeds one of ``lower``, ties counting half (Mann-Whitney).

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.
    """
    first, second = as_vector(higher), as_vector(lower)
    if _are_inseparable(first, second):
        return math.nan
    rank_sum = stats.rankdata(np.concatenate([first, second]))[: len(first)].sum()
    return float((rank_sum - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))


def average_precision(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the precision-recall curve as the step-wise sum over thresholds of (R_n - R_{n-1}) P_n.

    As scikit-learn has it; the trapezoidal area that OpenOOD reports is :func:`precision_recall_area`. Chance is the
    share of positives.

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.
    """
    curve = _precision_recall(positive, negative)
    if curve is None:
        return math.nan
    precision, recall = curve
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def precision_recall_area(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the precision-recall curve by trapezoids, from precision 1 at recall 0: what OpenOOD calls AUPR.

    Straight lines between the points promise more than a threshold can give (Davis and Goadrich 2006); the step-wise
    area is :func:`average_precision`.

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.
    """
    curve = _precision_recall(positive, negative)
    if curve is None:
        return math.nan
    precision, recall = curve
    heights = 0.5 * (precision + np.concatenate([[1.0], precision[:-1]]))
    return float((np.diff(recall, prepend=0.0) * heights).sum())


def fpr_at_tpr(positive: ArrayLike, negative: ArrayLike, *, tpr: float = 0.95) -> float:
    """Smallest share of negatives with score >= t, over thresholds t that at least ``tpr`` of the positives reach.

    Which class is positive matters: OpenOOD takes the out-of-distribution samples, most method papers the
    in-distribution ones, and the two values differ.

    Args:
        positive, negative: (P,) and (M,).
        tpr: above 0, up to 1.

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.

    Raises:
        ValueError: if ``tpr`` is outside its range.
    """
    if not 0.0 < tpr <= 1.0:
        raise ValueError(f"tpr must be above 0 and at most 1, got {tpr}.")
    first, second = as_vector(positive), as_vector(negative)
    if _are_inseparable(first, second):
        return math.nan
    rates = np.arange(1, len(first) + 1) / len(first)  # searched, not ceil(tpr * P), which can round up past P
    threshold = np.sort(first)[::-1][np.searchsorted(rates, tpr)]
    return float((second >= threshold).mean())


def auroc_low_density(scores: ArrayLike, truth: ArrayLike, *, share: float = 0.1) -> float:
    """AUROC with which scores find the ``share`` of samples of lowest true density; 1 is perfect.

    Returns:
        0 to 1; NaN if either side cannot be ranked, or so many truths are equal that no sample is above the lowest.

    Raises:
        ValueError: if lengths differ, or ``share`` is not between 0 and 1.
    """
    _require_share(share=share)
    values, true_values = as_vectors(scores=scores, truth=truth)
    if why_unrankable(true_values):
        return math.nan
    low = true_values <= np.quantile(true_values, share)
    return auroc(values[~low], values[low])


def typicality(scores: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """-|score - median of the reference scores|: low for samples of too low and of too high density alike."""
    distance: NDArray[np.float64] = np.abs(as_vector(scores) - np.median(as_vector(reference)))
    return -distance


def auroc_null_interval(higher: int, lower: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the AUROC between two sets of one distribution: what no method should leave there.

    By the variance (P + M + 1) / (12 P M) of Mann and Whitney; ties make it smaller, so that the interval is too wide.

    Args:
        higher, lower: P and M, the numbers of scores.
        level: probability that the AUROC is inside.

    Raises:
        ValueError: if a number is below 1, or ``level`` is not between 0 and 1.
    """
    require_whole(1, higher=higher, lower=lower)
    _require_share(level=level)
    half = float(stats.norm.ppf(0.5 + 0.5 * level)) * math.sqrt((higher + lower + 1) / (12.0 * higher * lower))
    return 0.5 - half, 0.5 + half


def bootstrap_interval(
    statistic: Callable[..., float], *sets: ArrayLike, level: float = 0.95, draws: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a statistic of one or several sets of samples, each resampled with replacement.

    Args:
        statistic: takes as many arrays as there are sets.
        sets: (N,) scores, or (N, ...) several numbers of each sample, which stay together: with the scores of two
            methods as columns the statistic can be the difference of their AUROC.
        level: share of the draws inside.
        draws: number of times that the sets are resampled.
        seed: seed of the draws.

    Returns:
        Lower and upper end; NaN if a set is empty, or the statistic of a draw is NaN.

    Raises:
        ValueError: if ``level`` is not between 0 and 1, or ``draws`` is below 1.
    """
    require_whole(1, draws=draws)
    _require_share(level=level)
    arrays = [np.asarray(values, dtype=np.float64) for values in sets]
    if not all(len(values) for values in arrays):
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    found = [
        statistic(*(values[generator.integers(len(values), size=len(values))] for values in arrays))
        for _ in range(draws)
    ]
    low, high = np.quantile(found, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    return float(low), float(high)


def matched_pairs(first: ArrayLike, second: ArrayLike, *, within: float) -> NDArray[np.int64]:
    """Pair samples of two sets whose values agree, as many as can be: a score that measures the value no longer helps.

    Args:
        first, second: (P,) and (M,) values, such as sizes after compression; those that are not finite have no partner.
        within: largest difference of a pair.

    Returns:
        (Q, 2) indices into both sets, each at most once, by ascending values.

    Raises:
        ValueError: if ``within`` is negative or NaN.
    """
    if not within >= 0.0:
        raise ValueError(f"within must be 0 or more, got {within}.")
    values = as_vector(first), as_vector(second)
    left, right = ([index for index in np.argsort(side) if np.isfinite(side[index])] for side in values)
    pairs, a, b = [], 0, 0
    while a < len(left) and b < len(right):
        difference = values[0][left[a]] - values[1][right[b]]
        if abs(difference) <= within:  # else the smaller of the two has no partner: what follows is larger still
            pairs.append((left[a], right[b]))
        a, b = a + (difference <= within), b + (difference >= -within)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _precision_recall(
    positive: ArrayLike, negative: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Precision and recall at every threshold, the highest first; ``None`` where scores cannot be ranked.

    Samples of one score pass a threshold together.
    """
    first, second = as_vector(positive), as_vector(negative)
    if _are_inseparable(first, second):
        return None
    distinct, level = np.unique(np.concatenate([first, second]), return_inverse=True)
    hits = np.bincount(level[: len(first)], minlength=len(distinct))[::-1].cumsum()
    passed = np.bincount(level, minlength=len(distinct))[::-1].cumsum()
    return hits / passed, hits / len(first)


def _require_share(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} must be between 0 and 1, got {share}.")


def _are_inseparable(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return not len(first) or not len(second) or why_unrankable(np.concatenate([first, second])) is not None
