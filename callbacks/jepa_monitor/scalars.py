"""Values by tag from the readings of one measurement, and the reasons for those that are NaN."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from . import tags
from .density.volume import EPS, TOLERANCE_NATS, is_imprecise
from .gaussianity import gaussianity_statistics
from .measurement import Readings
from .probe.facts import ProbeFacts
from .probe.sparing import further_set
from .ranking import auroc, auroc_low_density, kendall, partial_spearman, spearman, typicality, why_unrankable


def scalars(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    """Tag to value; a value without meaning is NaN (see :func:`problems` for the reason), never 0."""
    density, score = readings.scores.log_density.numpy(), readings.scores.jepa_score.numpy()
    n = len(density)
    values: dict[str, float] = {}
    for name, whole in facts.truths.items():
        truth, suffix = whole[:n], "" if name == facts.headline else f"_{name}"
        values[f"density/spearman{suffix}"] = spearman(density, truth)
        values[f"density/spearman_jepa_score{suffix}"] = spearman(score, truth)
        if facts.gaussian is not None:
            values[f"density/spearman_gaussian{suffix}"] = spearman(facts.gaussian[:n], truth)
        if name == facts.headline:
            values["density/kendall"] = kendall(density, truth)
            values["density/auroc_low_density"] = auroc_low_density(density, truth)
    complexity = facts.complexity[:n]
    values["density/complexity_spearman"] = spearman(density, complexity)
    if readings.knn is not None:
        near = -readings.knn[:n]
        values["density/knn_spearman"] = spearman(density, near)
        values["density/knn_spearman_given_complexity"] = partial_spearman(density, near, given=complexity)
    for name, other in readings.ood.items():
        other_density = other.log_density.numpy()
        values[f"density/ood_auroc/{name}"] = auroc(density, other_density)
        values[f"density/ood_auroc_jepa_score/{name}"] = auroc(score, other.jepa_score)
        values[f"density/ood_auroc_typicality/{name}"] = auroc(
            typicality(density, density), typicality(other_density, density)
        )
    for name, sample in (("log_density", density), ("jepa_score", score)):
        finite = sample[np.isfinite(sample)]
        for tag, quantile in zip(tags.of_quantiles(name), tags.QUANTILES.values(), strict=True):
            values[tag] = float(np.quantile(finite, quantile)) if len(finite) else math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on embeddings that are not finite: jacobian/nonfinite_fraction counts them
        values |= {f"gaussianity/{name}": value for name, value in gaussianity_statistics(readings.z).items()}
    values["gaussianity/variance_share"] = variance_share(readings.z)
    if readings.sketch_spearman is not None:
        values["density/sketch_spearman"] = readings.sketch_spearman
    return values | _jacobian_scalars(readings)


def variance_share(z: Tensor) -> float:
    """Total variance over mean square of (N, K) embeddings, 0 (all are equal) to 1; rows that are not finite left out.

    NaN with fewer than two rows.
    """
    z = z[torch.isfinite(z).all(1)]
    if len(z) < 2:
        return math.nan
    mean_square = float(z.square().sum(1).mean())
    return float((z - z.mean(0)).square().sum(1).mean()) / mean_square if mean_square > 0.0 else 0.0


def _jacobian_scalars(readings: Readings) -> dict[str, float]:
    bad, unscored = ~torch.isfinite(readings.log_singular).all(1), ~torch.isfinite(readings.scores.jepa_score)
    if readings.sketch_rows and bool(unscored.all()):  # a sketch that could not be calibrated scores nothing
        unscored = bad
    values = {
        "jacobian/nonfinite_fraction": float(unscored.double().mean()),
        "jacobian/clipped_fraction": float((readings.log_singular[~bad] <= math.log(EPS) + 1e-9).double().mean()),
        "jacobian/imprecise_fraction": float(is_imprecise(readings.log_singular[~bad], readings.dtype).double().mean()),
    }
    if readings.log_singular_white is not None:
        mean_spectrum = readings.log_singular_white.nanmean(0)
        condition = (mean_spectrum[0] - mean_spectrum[readings.rank - 1]) / math.log(10.0)
        values |= {"jacobian/rank": float(readings.rank), "jacobian/condition_log10": float(condition)}
    return values


def problems(readings: Readings, facts: ProbeFacts, *, advice: str) -> list[str]:
    """Reasons why values of this measurement are NaN or not to be trusted, one sentence each.

    Args:
        readings: of the measurement.
        facts: of the probe.
        advice: how to get more probe samples.
    """
    found = [f"there is no log density: {readings.problem}"] if readings.problem else []
    if readings.few:
        found.append(readings.few)
    samples, size = readings.z.shape
    if samples <= size and found:
        found[-1] = f"{found[-1].rstrip('.')}; to measure more than {size} samples, {advice}."
    if bool(is_imprecise(readings.log_singular, readings.dtype).any()):
        found.append(
            f"JEPA-SCORE of some samples (jacobian/imprecise_fraction) may be off by more than {TOLERANCE_NATS} nats, "
            f"because singular values above eps = {EPS:g} are near the rounding error of {readings.dtype}: measure a "
            "float64 module, or rank by log_density, which counts r directions."
        )
    found += _unfit_sets(readings)
    unfit = [] if readings.problem else [("log density", readings.scores.log_density)]
    unfit += [("JEPA-SCORE", readings.scores.jepa_score), *((f"{name} truth", t) for name, t in facts.truths.items())]
    return found + [f"{name} cannot be ranked: {why}" for name, values in unfit if (why := why_unrankable(values))]


def _unfit_sets(readings: Readings) -> list[str]:
    """Further sets whose scores are not all finite, where the probe has finite ones."""
    if not torch.isfinite(readings.scores.jepa_score).any():
        return []
    bad = {name: int((~torch.isfinite(scores.jepa_score)).sum()) for name, scores in readings.ood.items()}
    return [
        f"{further_set(name)} cannot be ranked: {count} of {len(readings.ood[name].jepa_score)} scores are not finite."
        for name, count in bad.items()
        if count
    ]
