"""Separation of two sets of samples by their scores: all by ranks, with ties right.

The positive set comes first and is expected to score higher. With scores that are higher where a sample is more
typical, ``f(inside, outside)`` has the in-distribution as the positive class and ``f(-outside, -inside)`` the
out-of-distribution. ``torchmetrics``' curves squash scores outside [0, 1] through a sigmoid, which ties large ones.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

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

    As scikit-learn has it; the trapezoidal area that OpenOOD reports is another number. Chance is the share of
    positives.

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.
    """
    first, second = as_vector(positive), as_vector(negative)
    if _are_inseparable(first, second):
        return math.nan
    distinct, level = np.unique(np.concatenate([first, second]), return_inverse=True)
    # per threshold, highest first: samples of one score pass it together
    hits = np.bincount(level[: len(first)], minlength=len(distinct))[::-1]
    passed = np.bincount(level, minlength=len(distinct))[::-1]
    return float((hits * (hits.cumsum() / passed.cumsum())).sum() / len(first))


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
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must be between 0 and 1, got {share}.")
    values, true_values = as_vectors(scores=scores, truth=truth)
    if why_unrankable(true_values):
        return math.nan
    low = true_values <= np.quantile(true_values, share)
    return auroc(values[~low], values[low])


def typicality(scores: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """-|score - median of the reference scores|: low for samples of too low and of too high density alike."""
    distance: NDArray[np.float64] = np.abs(as_vector(scores) - np.median(as_vector(reference)))
    return -distance


def _are_inseparable(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return not len(first) or not len(second) or why_unrankable(np.concatenate([first, second])) is not None
