"""Values by tag from the readings of one measurement, reasons for those that are NaN, and alarms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from . import tag_groups
from .density.volume import EPS, TOLERANCE_NATS, counts_rounding, is_imprecise
from .evaluation.features import explained, why_unexplained
from .gaussianity import gaussianity_statistics
from .probe.facts import ProbeFacts
from .probe.sparing import further_set
from .ranking import (
    auroc,
    auroc_low_density,
    fpr_at_tpr,
    kendall,
    partial_spearman,
    spearman,
    typicality,
    why_unrankable,
)
from .readings import KEEP, Readings, Scores

# bounds of the alarms
LOWEST_RANK_RATIO = 0.1
LOWEST_VARIANCE_SHARE = 1e-6
# an encoder that begins to train may vary no more than this, and a projector with batch norm enlarges what is left of
# one that has collapsed: only compared with the run's first measurement does it say something
LOW_VARIANCE_SHARE, FALL_OF_VARIANCE_SHARE = 2e-3, 0.1
TURNED_OVER = -0.3
FEWEST_FITTED = 12  # below it, a probe is too small for a density

MESSAGES = {
    "monitor/alarm_collapse": "the embeddings have collapsed",
    "monitor/alarm_nonfinite_jacobian": "some Jacobians are not finite",
    "monitor/alarm_turned_over": "the ranking has turned over since the last measurement",
}
CLEARED = {
    "monitor/alarm_collapse": "the embeddings are no longer collapsed",
    "monitor/alarm_nonfinite_jacobian": "all Jacobians are finite again",
    "monitor/alarm_turned_over": "the ranking no longer turns over",
}


def scalars(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    """Map tags to values; a value without meaning is NaN (:func:`problems` gives the reason), never 0."""
    return {
        **_truth_scalars(readings, facts),
        **_confound_scalars(readings, facts),
        **_set_scalars(readings),
        **_quantiles(readings),
        **_gaussianity_scalars(readings),
        **_jacobian_scalars(readings),
        **_dimension_scalars(readings),
        **_keep(readings, facts),
    }


def _truth_scalars(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    density, score = readings.scores.log_density, _exact_scores(readings)
    n = len(density)
    values: dict[str, float] = {}
    for name, whole in facts.truths.items():
        truth, suffix = whole[:n], "" if name == facts.headline else f"_{name}"
        values[f"density/spearman{suffix}"] = spearman(density, truth)
        by_gaussian = spearman(readings.gaussian, truth[: len(readings.gaussian)])
        values[f"density/spearman_gaussian_embedding{suffix}"] = by_gaussian
        values[f"density/spearman_jepa_score{suffix}"] = spearman(score, truth[: len(score)])
        if facts.gaussian is not None:
            values[f"density/spearman_gaussian{suffix}"] = spearman(facts.gaussian[:n], truth)
        if name == facts.headline:
            values["scores/kendall"] = kendall(density, truth)
            values["scores/auroc_low_density"] = auroc_low_density(density, truth)
    return values


def _exact_scores(readings: Readings) -> Tensor:
    """JEPA-SCORE (C,) of the samples with an exact Jacobian: all of them, or the first where others are estimated."""
    return readings.scores.jepa_score[: len(readings.log_singular)]


def _confound_scalars(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    density = readings.scores.log_density
    complexity = facts.complexity[: len(density)]
    values = {"scores/complexity_spearman": spearman(density, complexity)}
    if readings.knn is not None:
        near = -readings.knn[: len(density)]
        values["scores/knn_spearman"] = spearman(density, near)
        values["scores/knn_spearman_given_complexity"] = partial_spearman(density, near, given=complexity)
    return values


def _set_scalars(readings: Readings) -> dict[str, float]:
    density, score = readings.scores.log_density, readings.scores.jepa_score
    values = {}
    for name, other in readings.ood.items():
        values[f"density/ood_auroc/{name}"] = auroc(density, other.log_density)
        values[f"density/ood_auroc_jepa_score/{name}"] = auroc(score, other.jepa_score)
        values[f"density/ood_auroc_typicality/{name}"] = auroc(
            typicality(density, density), typicality(other.log_density, density)
        )
        values[f"density/ood_fpr95_ood_positive/{name}"] = fpr_at_tpr(-other.log_density, -density)
        for kind, found in other.of_embeddings.items():
            values[f"density/ood_auroc_{kind}/{name}"] = auroc(readings.scores.of_embeddings[kind], found)
    return values


def _quantiles(readings: Readings) -> dict[str, float]:
    values = {}
    for name in ("log_density", "jepa_score"):
        sample = getattr(readings.scores, name).numpy()
        finite = sample[np.isfinite(sample)]
        for tag, quantile in zip(tag_groups.quantile_tags(name), tag_groups.QUANTILES.values(), strict=True):
            values[tag] = float(np.quantile(finite, quantile)) if len(finite) else math.nan
    return values


def _gaussianity_scalars(readings: Readings) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on embeddings that are not finite: jacobian/nonfinite_fraction counts them
        statistics = gaussianity_statistics(readings.z)
    values = {f"gaussianity/{name}": value for name, value in statistics.items()}
    return values | {"gaussianity/variance_share": variance_share(readings.z)}


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
    bad, unscored = ~torch.isfinite(readings.log_singular).all(1), ~torch.isfinite(readings.scores.log_density)
    if not readings.subspace_rows:
        unscored = ~torch.isfinite(readings.scores.jepa_score)
    elif bool(unscored.all()):  # nothing was estimated
        unscored = bad
    values = {
        "jacobian/nonfinite_fraction": float(unscored.double().mean()),
        "jacobian/clipped_fraction": float((readings.log_singular[~bad] <= math.log(EPS) + 1e-9).double().mean()),
        "jacobian/imprecise_fraction": float(is_imprecise(readings.log_singular[~bad], readings.dtype).double().mean()),
    }
    if readings.subspace_spearman is not None:
        values["scores/subspace_spearman"] = readings.subspace_spearman
    return values


def _dimension_scalars(readings: Readings) -> dict[str, float]:
    """Dimension of the embeddings and rank of the Jacobian, NaN where there is no density: a collapse has neither."""
    dimension, mean_spectrum, rank = readings.dimension, readings.log_singular.nanmean(0), readings.rank
    condition = (mean_spectrum[0] - mean_spectrum[rank - 1]) / math.log(10.0) if rank else math.nan
    return {
        "jacobian/intrinsic_dimension": math.nan if dimension is None else dimension.estimate,
        "jacobian/intrinsic_dimension_low": math.nan if dimension is None else dimension.low,
        "jacobian/intrinsic_dimension_high": math.nan if dimension is None else dimension.high,
        "jacobian/rank": float(rank) if rank else math.nan,
        "jacobian/condition_log10": float(condition),
    }


def _keep(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    """Share of the inputs that a linear map finds in the features, by which a checkpoint is kept: docs/selection.md."""
    if facts.components is None or readings.features is None:
        return {}
    unknown = why_unexplained(readings.features, facts.components)
    return {KEEP: math.nan if unknown else explained(readings.features, facts.components)}


def problems(readings: Readings, facts: ProbeFacts, *, advice: str) -> list[str]:
    """Say why values of this measurement are NaN or not to be trusted, one sentence each.

    Args:
        readings: readings of the measurement.
        facts: facts of the probe.
        advice: advice on getting more probe samples.
    """
    found = [f"there is no log density: {readings.problem}"] if readings.problem else []
    if readings.problem_of_gaussian:
        found.append(f"there is no log density of a Gaussian embedding: {readings.problem_of_gaussian}")
    if found and len(readings.z) <= max(readings.z.shape[1], FEWEST_FITTED):
        found[-1] = f"{found[-1].rstrip('.')}; to measure more than {len(readings.z)} samples, {advice}."
    is_said = readings.problem and readings.features is readings.z
    if facts.components is not None and readings.features is not None and not is_said:
        why = why_unexplained(readings.features, facts.components)
        found += [f"{KEEP} is NaN: {why}."] if why else []
    if bool(is_imprecise(readings.log_singular, readings.dtype).any()):
        found.append(
            f"JEPA-SCORE of some samples (jacobian/imprecise_fraction) may be off by more than {TOLERANCE_NATS} nats, "
            f"because singular values above eps = {EPS:g} are near the rounding error of {readings.dtype}: measure a "
            "float64 module, or rank by log_density, which counts r directions."
        )
    if readings.rank and bool(counts_rounding(readings.log_singular, readings.rank, readings.dtype).any()):
        found.append(
            f"the log density of some samples counts singular values that are rounding, because their Jacobians have "
            f"fewer than rank = {readings.rank} directions in {readings.dtype}: give a smaller rank."
        )
    found += _unfit_sets(readings)
    if unmeasured := [f"{name!r}" for name, other in readings.ood.items() if not len(other.log_density)]:
        found.append(
            f"the budget has no time for Jacobians of the ood sets {', '.join(unmeasured)}, which are ranked by their "
            "embeddings alone: raise budget, or give num_samples."
        )
    if readings.subspace_rows and readings.ood:
        found.append(
            f"JEPA-SCORE is not computed for the ood sets: {readings.subspace_rows} rows of a Jacobian do not see the "
            "small singular values that it counts; give estimator='exact' for it."
        )
    unfit = [] if readings.problem else [("log density", readings.scores.log_density)]
    unfit += [("JEPA-SCORE", _exact_scores(readings)), *((f"{name} truth", t) for name, t in facts.truths.items())]
    return found + [f"{name} cannot be ranked: {why}" for name, values in unfit if (why := why_unrankable(values))]


def _unfit_sets(readings: Readings) -> list[str]:
    """Further sets whose scores are not all finite, where the probe has finite ones."""
    kind = "log_density" if readings.subspace_rows else "jepa_score"
    kinds: dict[str, Callable[[Scores], Tensor]] = {
        "scores": lambda scores: getattr(scores, kind),
        "embeddings": lambda scores: scores.of_embeddings.get("embedding", torch.empty(0)),
    }
    found: dict[str, str] = {}
    for what, of in kinds.items():
        if not torch.isfinite(of(readings.scores)).any():
            continue
        for name, other in readings.ood.items():
            if count := int((~torch.isfinite(of(other))).sum()):
                found.setdefault(
                    name, f"{further_set(name)} cannot be ranked: {count} of {len(of(other))} {what} are not finite."
                )
    return list(found.values())


def alarms(
    values: Mapping[str, float], *, embedding_size: int, first_variance_share: float = math.nan
) -> dict[str, str]:
    """Map the tag of each alarm that rings to the reason.

    - collapse: fewer than a tenth of the directions that a Gaussian would use (but more than one line), or a variance
      below 1e-6 of the mean square, or below 0.002 of it and a tenth of what it was when the run began;
    - nonfinite_jacobian: at least one;
    - turned_over: a rank correlation below -0.3 with the measurement before.

    Args:
        values: values of a measurement, by tag.
        embedding_size: K.
        first_variance_share: ``gaussianity/variance_share`` of the run's first measurement; NaN if this is the first.
    """
    found = {}
    rank_ratio = values.get("gaussianity/effective_rank_ratio", math.nan)
    variance = values.get("gaussianity/variance_share", math.nan)
    # two comparisons, because both are false with NaN
    fallen = variance < LOW_VARIANCE_SHARE and variance < FALL_OF_VARIANCE_SHARE * first_variance_share
    if variance < LOWEST_VARIANCE_SHARE or fallen:
        found["monitor/alarm_collapse"] = f"their variance is {variance:.1e} of their mean square"
    elif rank_ratio < lowest_rank_ratio(embedding_size) and embedding_size > 1:
        found["monitor/alarm_collapse"] = f"their effective rank is {rank_ratio:.3f} of a Gaussian's"
    nonfinite = values.get("jacobian/nonfinite_fraction", 0.0)
    if nonfinite > 0.0:
        found["monitor/alarm_nonfinite_jacobian"] = f"{100.0 * nonfinite:.1f} % of the samples"
    stability = values.get("density/stability", math.nan)
    if stability < TURNED_OVER:
        found["monitor/alarm_turned_over"] = f"rank correlation {stability:.2f}"
    return found


def lowest_rank_ratio(embedding_size: int) -> float:
    """``gaussianity/effective_rank_ratio`` below which K-dimensional embeddings have collapsed: a tenth, or a line."""
    return max(LOWEST_RANK_RATIO, 1.05 / embedding_size)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One sentence for each alarm that begins or ends between two measurements."""
    begun = [f"{MESSAGES[tag]}: {reason}." for tag, reason in now.items() if tag not in before]
    return begun + [f"{CLEARED[tag]}." for tag in before if tag not in now]
