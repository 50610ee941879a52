"""Telling two sets of samples apart by their scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .correlation import why_unrankable


def auroc(higher: ArrayLike, lower: ArrayLike) -> float:
    """Probability that a score of ``higher`` exceeds one of ``lower``, ties counting half (Mann-Whitney).

    By ranks: ``torchmetrics``' AUROC squashes scores outside [0, 1] through a sigmoid, which ties large ones.

    Returns:
        0 to 1; NaN if a set is empty, or the joint scores are constant or not finite.
    """
    first = np.asarray(higher, dtype=np.float64)
    second = np.asarray(lower, dtype=np.float64)
    joint = np.concatenate([first, second])
    if not len(first) or not len(second) or why_unrankable(joint):
        return math.nan
    rank_sum = stats.rankdata(joint)[: len(first)].sum()
    return float((rank_sum - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))


def auroc_low_density(scores: ArrayLike, truth: ArrayLike, *, share: float = 0.1) -> float:
    """AUROC with which scores find the ``share`` of samples of lowest true density; 1 is perfect."""
    values = np.asarray(scores, dtype=np.float64)
    if why_unrankable(truth):
        return math.nan
    true_values = np.asarray(truth, dtype=np.float64)
    low = true_values <= np.quantile(true_values, share)
    return auroc(values[~low], values[low])


def typicality(scores: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """-|score - median of the reference scores|: low for samples of too low and of too high density alike."""
    centre = np.median(np.asarray(reference, dtype=np.float64))
    distance: NDArray[np.float64] = np.abs(np.asarray(scores, dtype=np.float64) - centre)
    return -distance
