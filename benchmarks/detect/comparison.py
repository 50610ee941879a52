"""Rows of numbers: how well each method tells a set from the distribution, with intervals, and on matched pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from detect import resampling
from detect.methods import DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS
from detect.resampling import Vector, with_ends
from detect.sets import INSIDE, NULL
from jepa_monitor.ranking import auroc_null_interval, matched_pairs, spearman

MATCHED = 0.01  # of the deviation of sizes: the largest difference of a pair
FEWEST_PAIRS = 20
RIVALS = (MAHALANOBIS, KNN, DENSITY_ALONE)
AREAS = ("auroc", "matched")
Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """Metrics of one set by one method, or their differences, on all draws.

    Attributes:
        values: (B,) each, the first that of the sample itself.
        count: pictures of the smaller set; ``None`` for a difference.
        pairs: pairs of equal size.
    """

    values: Mapping[str, Vector]
    count: int | None
    pairs: int

    def row(self) -> Row:
        """Values with the ends of their intervals."""
        ends = {column: end for name, drawn in self.values.items() for column, end in with_ends(name, drawn).items()}
        return ({} if self.count is None else {"count": self.count}) | ends | {"pairs": self.pairs}

    def less(self, other: Drawn) -> Drawn:
        """Differences of the AUROC, of the same draws."""
        return Drawn({name: self.values[name] - other.values[name] for name in AREAS}, None, self.pairs)


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
    drawn: dict[tuple[str, str], Drawn] = {}
    for name, by_set in scores.items():
        inside = by_set[INSIDE]
        complexity = spearman(inside, bytes_of[INSIDE][: len(inside)])
        for other, outside in by_set.items():
            if other != INSIDE and len(outside):
                one = drawn[name, other] = _draw(inside, outside, bytes_of[INSIDE], bytes_of[other])
                found.append({"set": other, "method": name, **one.row(), "complexity": complexity})
    for rival in (rival for rival in RIVALS if rival in scores and DEFAULT in scores):
        for other in (other for other in sizes if other not in (INSIDE, NULL)):
            ours = [scores[DEFAULT][name] for name in (INSIDE, other)]
            theirs = [scores[rival][name][: len(own)] for name, own in zip((INSIDE, other), ours, strict=True)]
            less = drawn[DEFAULT, other].less(_draw(*theirs, bytes_of[INSIDE], bytes_of[other]))
            found.append({"set": other, "method": difference_name(rival), **less.row()})
    return found


def difference_name(rival: str) -> str:
    """Name of the rows that hold the AUROC of the default less that of another method."""
    return f"{DEFAULT} - {rival}"


def _draw(inside: Vector, outside: Vector, size_inside: Vector, size_outside: Vector) -> Drawn:
    """Every metric of all pictures, and the AUROC of pairs of equal size: the same draws whatever the scores."""
    generator = np.random.default_rng(0)
    times = [resampling.times_drawn(len(scores), generator) for scores in (inside, outside)]
    found = resampling.metrics(inside, outside, *times)
    first, second = size_inside[: len(inside)], size_outside[: len(outside)]
    pairs = matched_pairs(first, second, within=MATCHED * float(np.concatenate([first, second]).std()))
    matched = np.full(1 + resampling.DRAWS, math.nan)
    if len(pairs) >= FEWEST_PAIRS:
        drawn = resampling.times_drawn(len(pairs), generator)  # both pictures of a pair stay together
        matched = resampling.auroc(inside[pairs[:, 0]], outside[pairs[:, 1]], drawn, drawn)
    return Drawn(found | {"matched": matched}, min(len(inside), len(outside)), len(pairs))


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
