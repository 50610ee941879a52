"""Forecasts, from images of the distribution alone, that a score inverts: takes others for more typical than its own.

Forecasts are judged on encoders of many objectives: what is chosen (the threshold of a feature, or which feature) is
chosen on all objectives but the one that it is judged on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detect.methods import KNN, SIZE
from detect.readings import Reading
from detect.sets import INSIDE, NULL
from jepa_monitor.gaussianity import gaussianity_statistics
from jepa_monitor.ranking import predict_inversion, spearman

SCORES = ("Eq. 5", "log_density, gaussian")
FIXED = "nearness"  # the feature of predict_inversion, which inverts below 0: nothing is chosen
FEATURES = (FIXED, "complexity", "sliced_ep_ratio", "norm_variance_ratio", "effective_rank_ratio", "dimension_share")


def features(reading: Reading, scored: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Compute the features of each score of an encoder, from test images of the distribution.

    ``nearness`` and ``complexity`` are rank correlations of the score, with minus the distance to the nearest reference
    embeddings and with the compressed size; the others are of the encoder, whatever the score.
    """
    z = torch.cat([reading.sets[name].z for name in (INSIDE, NULL)])
    statistics = gaussianity_statistics(z)
    of_encoder = {name: statistics[name] for name in FEATURES if name in statistics}
    of_encoder["dimension_share"] = reading.rank / z.shape[1]
    found = {}
    for score in (score for score in SCORES if score in scored and KNN in scored):
        own, near, size = (_of_both(scored[name], scored[score]) for name in (score, KNN, SIZE.name))
        correlations = {FIXED: predict_inversion(own, near).correlation, "complexity": spearman(own, -size)}
        found[score] = correlations | of_encoder
    return found


def _of_both(values: Mapping[str, Tensor], measured: Mapping[str, Tensor]) -> Tensor:
    """Values of those test images that a score was measured of."""
    return torch.cat([values[name][: len(measured[name])].double() for name in (INSIDE, NULL)])


@dataclass(frozen=True)
class Case:
    """One score of one output of one encoder.

    Attributes:
        objective: what is left out together.
        features: see :func:`features`.
        inverted: the AUROC against the set is below 1/2.
    """

    objective: str
    features: Mapping[str, float]
    inverted: bool


def cases_of(rows: Sequence[Mapping[str, Any]], other: str) -> list[Case]:
    """Cases of all rows of a set."""
    of = [row for row in rows if row["set"] == other and row["method"] in row["features"]]
    return [
        Case(row["label"], {name: math.nan if value is None else value for name, value in found.items()}, inverted)
        for row in of
        if math.isfinite(row["auroc"])
        for found, inverted in [(row["features"][row["method"]], row["auroc"] < 0.5)]
    ]


def share_right(forecasts: Sequence[bool], cases: Sequence[Case]) -> float:
    """Mean of the shares of right forecasts among those that invert and among the others: chance is 1/2."""
    right = [forecast == case.inverted for forecast, case in zip(forecasts, cases, strict=True)]
    of_kind = [[one for one, case in zip(right, cases, strict=True) if case.inverted is kind] for kind in (True, False)]
    known = [float(np.mean(kind)) for kind in of_kind if kind]
    return float(np.mean(known)) if known else math.nan


def fixed(cases: Sequence[Case]) -> list[bool]:
    """Forecast by the sign of the correlation with nearness alone, as ``predict_inversion`` does."""
    return [case.features[FIXED] < 0.0 for case in cases]


def left_out(cases: Sequence[Case], names: Sequence[str]) -> list[bool]:
    """Forecast each objective by the one of these features, and its threshold, that is best on all other objectives."""
    rules = {}
    for objective in {case.objective for case in cases}:
        others = [case for case in cases if case.objective != objective]
        rules[objective] = max((_best(others, name) for name in names), key=lambda rule: rule[0])
    of_cases = [(case, *rules[case.objective]) for case in cases]
    return [sign * case.features[name] < threshold for case, _, name, sign, threshold in of_cases]


def _best(cases: Sequence[Case], name: str) -> tuple[float, str, float, float]:
    """Share of right forecasts, feature, sign and threshold of the best rule ``sign * feature < threshold``."""
    values = np.array([case.features[name] for case in cases])
    best = (-1.0, name, 1.0, 0.0)
    for sign in (1.0, -1.0):
        ordered = np.unique(sign * values)
        for threshold in [-math.inf, *(0.5 * (ordered[1:] + ordered[:-1])), math.inf]:
            share = share_right([bool(value < threshold) for value in sign * values], cases)
            best = max(best, (share, name, sign, float(threshold)), key=lambda rule: rule[0])
    return best
