"""Rows of numbers: how well each method tells a set from the distribution, with intervals, and on matched pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detect.methods import DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS
from detect.sets import INSIDE, NULL
from jepa_monitor.ranking import (
    auroc,
    auroc_null_interval,
    average_precision,
    fpr_at_tpr,
    matched_pairs,
    precision_recall_area,
    spearman,
)

DRAWS = 200
MATCHED = 0.01  # of the deviation of sizes: the largest difference of a pair
FEWEST_PAIRS = 20
RIVALS = (MAHALANOBIS, KNN, DENSITY_ALONE)
Vector = NDArray[np.float64]
Row = dict[str, Any]


def rows_of(scored: Mapping[str, Mapping[str, Tensor]], sizes: Mapping[str, Tensor]) -> list[Row]:
    """Compare every set with ``inside``.

    Args:
        scored: scores (N,) of every set, by method; a method may have scored the first pictures of a set alone.
        sizes: (N,) compressed sizes by set.

    Returns:
        A row for each set and method, and for each set and rival of the default the difference of both.
    """
    scores = {name: {of: values.double().numpy() for of, values in found.items()} for name, found in scored.items()}
    bytes_of = {name: values.double().numpy() for name, values in sizes.items()}
    found: list[Row] = []
    for name, by_set in scores.items():
        known = {INSIDE: by_set[INSIDE]}
        complexity = spearman(known[INSIDE], bytes_of[INSIDE][: len(known[INSIDE])])
        for other, outside in by_set.items():
            if other != INSIDE and len(outside):
                row = _row(by_set[INSIDE], outside, bytes_of[INSIDE], bytes_of[other])
                found.append({"set": other, "method": name, **row, "complexity": complexity})
    for rival in (rival for rival in RIVALS if rival in scores and DEFAULT in scores):
        for other in (other for other in sizes if other not in (INSIDE, NULL)):
            ours, theirs = (_wins(scores[name][INSIDE], scores[name][other]) for name in (DEFAULT, rival))
            row = _with_intervals(ours - theirs, bytes_of[INSIDE], bytes_of[other])
            found.append({"set": other, "method": difference_name(rival), **row})
    return found


def difference_name(rival: str) -> str:
    """Name of the rows that hold the AUROC of the default less that of another method."""
    return f"{DEFAULT} - {rival}"


def _row(inside: Vector, outside: Vector, size_inside: Vector, size_outside: Vector) -> Row:
    row: Row = {"count": min(len(inside), len(outside))}
    row |= _with_intervals(_wins(inside, outside), size_inside, size_outside)
    for title, area in (("trapezoidal", precision_recall_area), ("stepwise", average_precision)):
        row[f"aupr_in_{title}"], row[f"aupr_out_{title}"] = area(inside, outside), area(-outside, -inside)
    row["fpr95_ood_positive"] = fpr_at_tpr(-outside, -inside)
    row["fpr95_id_positive"] = fpr_at_tpr(inside, outside)
    return row


def _wins(inside: Vector, outside: Vector) -> Vector:
    """Matrix (N, M) of 1 where the first is higher and 1/2 where they are equal: its mean is the AUROC."""
    if np.isnan(auroc(inside, outside)):
        return np.full((len(inside), len(outside)), np.nan)
    wins: Vector = 0.5 * (1.0 + np.sign(inside[:, None] - outside))
    return wins


def _with_intervals(wins: Vector, size_inside: Vector, size_outside: Vector) -> Row:
    """AUROC, or a difference of two, of all pictures and of pairs of equal size, each with its interval."""
    generator = np.random.default_rng(0)
    times = [_times_drawn(count, generator) for count in wins.shape]
    row: Row = dict(zip(("auroc", "auroc_low", "auroc_high"), _interval(wins, *times), strict=True))
    first, second = size_inside[: len(wins)], size_outside[: wins.shape[1]]
    pairs = matched_pairs(first, second, within=MATCHED * float(np.concatenate([first, second]).std()))
    found = (math.nan, math.nan, math.nan)
    if len(pairs) >= FEWEST_PAIRS:
        drawn = _times_drawn(len(pairs), generator)  # both pictures of a pair stay together
        found = _interval(wins[np.ix_(*pairs.T)], drawn, drawn)
    return row | dict(zip(("matched", "matched_low", "matched_high"), found, strict=True)) | {"pairs": len(pairs)}


def _times_drawn(count: int, generator: np.random.Generator) -> Vector:
    """Numbers (DRAWS, N) of times that each of N is drawn."""
    return generator.multinomial(count, np.full(count, 1.0 / count), size=DRAWS).astype(np.float64)


def _interval(wins: Vector, inside: Vector, outside: Vector) -> tuple[float, float, float]:
    """Mean of a matrix, and the ends of 95 % of its bootstrapped means.

    A mean is linear in how often each row and column is drawn: products of matrices take a tenth of the time that
    :func:`jepa_monitor.ranking.bootstrap_interval` takes to rank the scores of every draw.
    """
    means = ((inside @ wins) * outside).sum(1) / wins.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(wins.mean()), float(low), float(high)


def null_failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about methods that tell pictures of the distribution from others of it: their table is worth nothing.

    All methods of all encoders together have a chance of 5 % that one of them fails (Bonferroni). NaN fails.
    """
    nulls = [row for row in rows if row["set"] == NULL]
    failed = []
    for row in nulls:
        low, high = auroc_null_interval(row["count"], row["count"], level=1.0 - 0.05 / len(nulls))
        if not low <= row["auroc"] <= high:
            failed.append(
                f"{row['method']} of {row['encoder']} ({row['output']}) has AUROC {row['auroc']:.3f} between two sets "
                f"of one distribution, outside {low:.3f} to {high:.3f}"
            )
    return failed
