"""One measurement: from an encoder and a probe to per-sample readings, and from readings to scalars.

`read` is the only place that meets other processes: it is the same sequence of collectives on each of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .density import (
    EmbeddingReference,
    Encode,
    auto_rank,
    gram_and_embedding,
    log_density_from_spectrum,
    log_singular_values,
)
from .density.volume import EPS
from .encoding import embed
from .gaussianity import gaussianity
from .probe import Shard, gather_by_index
from .ranking import (
    auroc,
    auroc_low_density,
    compressed_size,
    kendall,
    knn_distance,
    spearman,
    typicality,
    why_unrankable,
)

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ProbeFacts:
    """What is known of the probe without any encoder, in probe order; computed once.

    Attributes:
        truths: name to (N,) true log density; the first is the headline.
        gaussian: (N,) log density under one Gaussian fitted to the reference inputs, or ``None``.
        complexity: (N,) compressed bytes.
        reference: this process's part of the reference inputs, or ``None``.
    """

    truths: Mapping[str, Tensor]
    gaussian: Tensor | None
    complexity: Tensor
    reference: Shard | None


def probe_facts(
    shard: Shard,
    *,
    log_densities: Mapping[str, LogDensity],
    gaussian: LogDensity | None,
    reference: Shard | None,
) -> ProbeFacts:
    """Facts of the whole probe, gathered from all processes."""

    def everywhere(function: LogDensity) -> Tensor:
        return gather_by_index(shard.indices, function(shard.inputs).double().to(shard.indices.device))

    flat = shard.inputs.flatten(1).nan_to_num()
    ranges = gather_by_index(shard.indices, torch.stack([flat.amin(1), flat.amax(1)], dim=1).to(shard.indices.device))
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    return ProbeFacts(
        truths={name: everywhere(function) for name, function in log_densities.items()},
        gaussian=everywhere(gaussian) if gaussian else None,
        complexity=everywhere(lambda inputs: torch.from_numpy(compressed_size(inputs, low=low, high=high))),
        reference=reference,
    )


@dataclass(frozen=True)
class Scores:
    """Scores of one set of samples, (N,) nats each: Eq. 5 and the log density."""

    jepa_score: Tensor
    log_density: Tensor


@dataclass(frozen=True)
class Readings:
    """Everything read from an encoder at one step, in probe order, on the CPU, equal on all processes.

    Attributes:
        z: (N, K) embeddings.
        log_singular: (N, min(K, D)) log singular values of the Jacobian, clipped, largest first.
        log_singular_white: (N, L) those of the whitened embedding, or ``None`` where it cannot be whitened.
        rank: r of the log density; 0 where there is none.
        scores: of the probe.
        knn: (N,) distance to the nearest reference embeddings, or ``None``.
        ood: scores of further sets.
        problem: why there is no log density, or ``None``.
    """

    z: Tensor
    log_singular: Tensor
    log_singular_white: Tensor | None
    rank: int
    scores: Scores
    knn: Tensor | None
    ood: Mapping[str, Scores] = field(default_factory=dict)
    problem: str | None = None


def read(
    encode: Encode,
    probe: Shard,
    *,
    facts: ProbeFacts,
    ood: Mapping[str, Shard],
    to_device: Callable[[Tensor], Tensor],
    rank: int | None = None,
    chunk: int | None = None,
) -> Readings:
    """Measure an encoder on a probe. Every process calls it with its shards; all get the same readings.

    Args:
        encode: maps (B, ...) inputs to (B, K), in eval mode.
        probe: this process's shard.
        facts: of the probe.
        ood: shards of further sets, in the same order on every process.
        to_device: brings CPU inputs to the encoder.
        rank: r of the log density; ``None`` cuts the mean spectrum at its widest gap.
        chunk: samples a pass; ``None`` chooses by size and free memory.
    """
    input_size = probe.inputs[0].numel()
    gram, z_local = gram_and_embedding(encode, to_device(probe.inputs), chunk=chunk)
    z = gather_by_index(probe.indices, z_local)
    log_singular = gather_by_index(probe.indices, log_singular_values(gram, input_size=input_size))
    jepa_score = log_singular.sum(1)
    ood_grams = {name: gram_and_embedding(encode, to_device(shard.inputs), chunk=chunk) for name, shard in ood.items()}
    ood_jepa_score = {
        name: gather_by_index(ood[name].indices, log_singular_values(ood_gram, input_size=input_size).sum(1))
        for name, (ood_gram, _) in ood_grams.items()
    }
    knn = None
    if facts.reference is not None:
        z_reference = gather_by_index(facts.reference.indices, embed(encode, to_device(facts.reference.inputs)))
        knn = knn_distance(z, z_reference)

    try:  # z is equal on all processes, so either all of them go on or none does
        white = EmbeddingReference.fit(z)
    except ValueError as error:
        unknown = {name: Scores(score, torch.full_like(score, torch.nan)) for name, score in ood_jepa_score.items()}
        scores = Scores(jepa_score, torch.full_like(jepa_score, torch.nan))
        return Readings(z, log_singular, None, 0, scores, knn, unknown, str(error))

    local = white.to(gram.device)
    log_singular_white = gather_by_index(probe.indices, log_singular_values(local.whiten_gram(gram)))
    r = auto_rank(log_singular_white.nanmean(0)) if rank is None else min(rank, log_singular_white.shape[1])
    scores = Scores(jepa_score, log_density_from_spectrum(log_singular_white, white.whiten(z), rank=r))
    ood_scores = {}
    for name, (ood_gram, ood_z) in ood_grams.items():
        values = log_singular_values(local.whiten_gram(ood_gram))
        density = log_density_from_spectrum(values, local.whiten(ood_z), rank=r)
        ood_scores[name] = Scores(ood_jepa_score[name], gather_by_index(ood[name].indices, density))
    return Readings(z, log_singular, log_singular_white, r, scores, knn, ood_scores)


def scalars(readings: Readings, facts: ProbeFacts) -> dict[str, float]:
    """Tag to value; a value without meaning is NaN (see :func:`problems` for the reason), never 0."""
    density, score = readings.scores.log_density.numpy(), readings.scores.jepa_score.numpy()
    values: dict[str, float] = {}
    for position, (name, truth) in enumerate(facts.truths.items()):
        suffix = f"_{name}" if position else ""
        values[f"density/spearman{suffix}"] = spearman(density, truth)
        values[f"density/spearman_jepa_score{suffix}"] = spearman(score, truth)
        if facts.gaussian is not None:
            values[f"density/spearman_gaussian{suffix}"] = spearman(facts.gaussian, truth)
        if position == 0:
            values["density/kendall"] = kendall(density, truth)
            values["density/auroc_low_density"] = auroc_low_density(density, truth)
    values["density/complexity_spearman"] = spearman(density, facts.complexity)
    if readings.knn is not None:
        values["density/knn_spearman"] = spearman(density, -readings.knn)
    for name, other in readings.ood.items():
        other_density = other.log_density.numpy()
        values[f"density/ood_auroc/{name}"] = auroc(density, other_density)
        values[f"density/ood_auroc_jepa_score/{name}"] = auroc(score, other.jepa_score)
        values[f"density/ood_auroc_typicality/{name}"] = auroc(
            typicality(density, density), typicality(other_density, density)
        )
    for name, sample in (("log_density", density), ("jepa_score", score)):
        finite = sample[np.isfinite(sample)]
        for quantile, label in ((0.1, "q10"), (0.5, "median"), (0.9, "q90")):
            value = float(np.quantile(finite, quantile)) if len(finite) else math.nan
            values[f"density/{name}_{label}(nats)"] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on embeddings that are not finite: jacobian/nonfinite_fraction counts them
        values |= {f"gaussianity/{name}": value for name, value in gaussianity(readings.z).items()}
    return values | _jacobian_scalars(readings)


def _jacobian_scalars(readings: Readings) -> dict[str, float]:
    bad = ~torch.isfinite(readings.log_singular).all(1)
    values = {
        "jacobian/nonfinite_fraction": float(bad.double().mean()),
        "jacobian/clipped_fraction": float((readings.log_singular[~bad] <= math.log(EPS) + 1e-9).double().mean()),
    }
    if readings.log_singular_white is not None:
        mean_spectrum = readings.log_singular_white.nanmean(0)
        condition = (mean_spectrum[0] - mean_spectrum[readings.rank - 1]) / math.log(10.0)
        values |= {"jacobian/rank": float(readings.rank), "jacobian/condition_log10": float(condition)}
    return values


def problems(readings: Readings, facts: ProbeFacts) -> list[str]:
    """Why values of this measurement are NaN, one sentence each; empty if none is."""
    found = [f"there is no log density: {readings.problem}"] if readings.problem else []
    unfit = [] if readings.problem else [("log density", readings.scores.log_density)]
    unfit += [("JEPA-SCORE", readings.scores.jepa_score), *((f"{name} truth", t) for name, t in facts.truths.items())]
    return found + [f"{name} cannot be ranked: {why}" for name, values in unfit if (why := why_unrankable(values))]
