"""Rows of numbers: how well each method tells a set from the distribution, with intervals, and on matched pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    bootstrap_interval,
    fpr_at_tpr,
    matched_pairs,
    precision_recall_area,
    spearman,
)

DRAWS = 200
MATCHED = 0.05  # of the deviation of sizes: the largest difference of a pair
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
            pair = [np.stack([scores[name][of] for name in (DEFAULT, rival)], 1) for of in (INSIDE, other)]
            row = _difference(pair[0], pair[1], bytes_of[INSIDE], bytes_of[other])
            found.append({"set": other, "method": difference_name(rival), **row})
    return found


def difference_name(rival: str) -> str:
    """Name of the rows that hold the AUROC of the default less that of another method."""
    return f"{DEFAULT} - {rival}"


def _row(inside: Vector, outside: Vector, size_inside: Vector, size_outside: Vector) -> Row:
    row: Row = {"count": min(len(inside), len(outside)), "auroc": auroc(inside, outside)}
    row["auroc_low"], row["auroc_high"] = bootstrap_interval(auroc, inside, outside, draws=DRAWS)
    for title, area in (("trapezoidal", precision_recall_area), ("stepwise", average_precision)):
        row[f"aupr_in_{title}"], row[f"aupr_out_{title}"] = area(inside, outside), area(-outside, -inside)
    row["fpr95_ood_positive"] = fpr_at_tpr(-outside, -inside)
    row["fpr95_id_positive"] = fpr_at_tpr(inside, outside)
    return row | _matched(auroc, inside, outside, size_inside, size_outside)


def _difference(inside: Vector, outside: Vector, size_inside: Vector, size_outside: Vector) -> Row:
    low, high = bootstrap_interval(auroc_difference, inside, outside, draws=DRAWS)
    row: Row = {"auroc": auroc_difference(inside, outside), "auroc_low": low, "auroc_high": high}
    return row | _matched(auroc_difference, inside, outside, size_inside, size_outside)


def auroc_difference(inside: Vector, outside: Vector) -> float:
    """AUROC of the first column less that of the second: scores (N, 2) of two methods."""
    return auroc(inside[:, 0], outside[:, 0]) - auroc(inside[:, 1], outside[:, 1])


def _matched(
    statistic: Callable[[Vector, Vector], float],
    inside: Vector,
    outside: Vector,
    size_inside: Vector,
    size_outside: Vector,
) -> Row:
    """Number of pairs of equal size, and the statistic of them with its interval, the pairs resampled."""
    first, second = size_inside[: len(inside)], size_outside[: len(outside)]
    pairs = matched_pairs(first, second, within=MATCHED * float(np.concatenate([first, second]).std()))
    row: Row = {"pairs": len(pairs), "matched": math.nan, "matched_low": math.nan, "matched_high": math.nan}
    if len(pairs) < FEWEST_PAIRS:
        return row
    both = np.stack([inside[pairs[:, 0]], outside[pairs[:, 1]]], 1)
    row["matched"] = statistic(both[:, 0], both[:, 1])
    row["matched_low"], row["matched_high"] = bootstrap_interval(
        lambda drawn: statistic(drawn[:, 0], drawn[:, 1]), both, draws=DRAWS
    )
    return row


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
