"""Metrics of detection and of all their bootstrap draws at once, from how often each score is drawn.

Scores are sorted once: a draw changes how often each of them counts, and cumulative sums of that give every curve. It
takes a hundredth of the time that :func:`jepa_monitor.ranking.bootstrap_interval` takes to sort every draw anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from jepa_monitor.ranking import why_unrankable

DRAWS = 200
TPR = 0.95
METRICS = (
    "auroc",
    "aupr_in_trapezoidal",
    "aupr_out_trapezoidal",
    "aupr_in_stepwise",
    "aupr_out_stepwise",
    "fpr95_ood_positive",
    "fpr95_id_positive",
)
Vector = NDArray[np.float64]


def times_drawn(count: int, generator: np.random.Generator) -> Vector:
    """Numbers (1 + DRAWS, N) of times that each of N is drawn; the first line is that of the sample itself, ones."""
    drawn = generator.integers(count, size=(DRAWS, count)) + count * np.arange(DRAWS)[:, None]
    times = np.bincount(drawn.ravel(), minlength=DRAWS * count).reshape(DRAWS, count)
    return np.concatenate([np.ones((1, count)), times])


def metrics(inside: Vector, outside: Vector, times_inside: Vector, times_outside: Vector) -> dict[str, Vector]:
    """Compute every metric of :mod:`jepa_monitor.ranking` on every draw.

    Args:
        inside, outside: (N,) and (M,) scores.
        times_inside, times_outside: (B, N) and (B, M) numbers of times that each is drawn.

    Returns:
        (B,) values by the names of ``METRICS``; NaN where scores cannot be ranked.
    """
    if why_unrankable(np.concatenate([inside, outside])):
        return {name: np.full(len(times_inside), math.nan) for name in METRICS}
    kept, taken = _passed(inside, outside, times_inside, times_outside)
    found, rejected = _passed(-outside, -inside, times_outside, times_inside)
    values = {"auroc": _auroc(kept, taken)}
    values["aupr_in_stepwise"], values["aupr_in_trapezoidal"] = _areas(kept, taken)
    values["aupr_out_stepwise"], values["aupr_out_trapezoidal"] = _areas(found, rejected)
    values["fpr95_id_positive"], values["fpr95_ood_positive"] = _fpr(kept, taken), _fpr(found, rejected)
    return values


def auroc(inside: Vector, outside: Vector, times_inside: Vector, times_outside: Vector) -> Vector:
    """Compute the AUROC alone, as :func:`metrics` does: (B,)."""
    if why_unrankable(np.concatenate([inside, outside])):
        return np.full(len(times_inside), math.nan)
    return _auroc(*_passed(inside, outside, times_inside, times_outside))


def with_ends(name: str, drawn: Vector) -> Mapping[str, float]:
    """Value of the sample itself, and both ends of 95 % of its draws, by the names of three columns."""
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return {name: float(drawn[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _passed(positive: Vector, negative: Vector, times: Vector, times_negative: Vector) -> tuple[Vector, Vector]:
    """Numbers (B, L) of drawn positives and negatives that reach each of L distinct scores, the highest first."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores)
    last_of_level = np.flatnonzero(np.diff(scores[order], append=math.nan) != 0.0)
    both = np.zeros((2, len(times), len(scores)))
    both[0, :, : len(positive)], both[1, :, len(positive) :] = times, times_negative
    hits, false = both[:, :, order].cumsum(2)[:, :, last_of_level]
    return hits, false


def _auroc(hits: Vector, false: Vector) -> Vector:
    """Share of pairs whose positive is higher; half of those that are equal."""
    gained, passed = np.diff(hits, prepend=0.0), np.diff(false, prepend=0.0)
    found: Vector = (passed * (hits - 0.5 * gained)).sum(1) / (hits[:, -1] * false[:, -1])
    return found


def _areas(hits: Vector, false: Vector) -> tuple[Vector, Vector]:
    """Areas (B,) under precision over recall, by steps and by trapezoids."""
    passed = hits + false
    precision = np.divide(hits, passed, out=np.ones_like(hits), where=passed > 0.0)
    before = np.concatenate([np.ones((len(hits), 1)), precision[:, :-1]], axis=1)
    gained = np.diff(hits, prepend=0.0) / hits[:, -1:]
    return (gained * precision).sum(1), (gained * 0.5 * (precision + before)).sum(1)


def _fpr(hits: Vector, false: Vector) -> Vector:
    """Share (B,) of negatives at the highest score that 95 % of the positives reach."""
    reached = (hits / hits[:, -1:] >= TPR).argmax(1)
    share: Vector = np.take_along_axis(false, reached[:, None], axis=1)[:, 0] / false[:, -1]
    return share
