"""One measurement: from an encoder and a probe to per-sample readings, and from readings to scalars.

`read` is the only place that meets other processes: it is the same sequence of collectives on each of them, and what a
process does by itself in between is agreed on before the next one.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import tags
from .agreement import from_first, process_count, together
from .budget import CALIBRATION_SAMPLES, Plan, Trial, can_sketch, sketch_rows
from .density import (
    EmbeddingReference,
    Encode,
    Sketch,
    Strategy,
    auto_rank,
    is_imprecise,
    log_singular_values,
    map_grams,
)
from .density.score import TOLERANCE_NATS
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
    partial_spearman,
    spearman,
    typicality,
    why_unrankable,
)
from .sparing import Sparing

LogDensity = Callable[[Tensor], Tensor]
TRIAL_SECONDS = 0.2  # of the last pass of a trial
EMBEDDED_IN_TRIAL = 128  # samples on each process


@dataclass(frozen=True)
class ProbeFacts:
    """What is known of the probe without any encoder, in probe order; computed once.

    Attributes:
        truths: name to (N,) true log density.
        headline: name of the truth whose tags have no name; ``None`` without one.
        gaussian: (N,) log density under one Gaussian fitted to the reference inputs, or ``None``.
        complexity: (N,) compressed bytes.
        reference: this process's part of the reference inputs, or ``None``.
        coordinates: (N, r) latent coordinates that are known of the probe, or ``None``.
    """

    truths: Mapping[str, Tensor]
    gaussian: Tensor | None
    complexity: Tensor
    reference: Shard | None
    coordinates: Tensor | None = None
    headline: str | None = None


def probe_facts(
    shard: Shard,
    *,
    log_densities: Mapping[str, LogDensity],
    gaussian: LogDensity | None,
    reference: Shard | None,
    coordinates: Callable[[Tensor], Tensor] | None = None,
    sparing: Sparing,
) -> ProbeFacts:
    """Facts of the whole probe, gathered from all processes; what fails is left out."""
    inputs = shard.inputs if shard.inputs.is_floating_point() else shard.inputs.float()

    def everywhere(function: LogDensity) -> Tensor:
        device = shard.indices.device
        return gather_by_index(
            shard.indices, together(lambda: function(inputs.clone()).double().to(device), device=device)
        )

    def one_number_each(function: LogDensity) -> Tensor:
        return everywhere(lambda inputs: _require_one_each(function(inputs), len(inputs)))

    truths = {}
    for position, (name, function) in enumerate(log_densities.items()):
        lost = tags.of_truth(name, headline=position == 0)
        truth = sparing.attempt(f"log_density {name!r}", partial(one_number_each, function), lost)
        if truth is not None:
            truths[name] = truth
    flat = inputs.flatten(1).nan_to_num()
    ranges = everywhere(lambda _: torch.stack([flat.amin(1), flat.amax(1)], dim=1))
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    return ProbeFacts(
        truths=truths,
        gaussian=everywhere(gaussian) if gaussian else None,
        complexity=everywhere(lambda inputs: torch.from_numpy(compressed_size(inputs, low=low, high=high))),
        reference=reference,
        coordinates=sparing.attempt("coordinates", partial(everywhere, coordinates)) if coordinates else None,
        headline=next(iter(log_densities), None),
    )


def _require_one_each(values: Tensor, count: int) -> Tensor:
    if values.shape != (count,):
        raise ValueError(
            f"it must give one number for each of {count} inputs, of shape ({count},), and gave {tuple(values.shape)}."
        )
    return values


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
        z_white: (N, L) whitened ones, or ``None`` where they cannot be whitened.
        log_singular: (C, min(K, D)) log singular values of the Jacobian, clipped, largest first: of the samples with an
            exact Jacobian.
        log_singular_white: (C, L) those of the whitened embedding, or ``None``.
        rank: r of the log density; 0 where there is none.
        scores: of the first n samples of the probe.
        knn: (N,) distance to the nearest reference embeddings, or ``None``.
        ood: scores of further sets.
        problem: why there is no log density, or ``None``.
        few: how embeddings of a probe that is too small were whitened; ``None`` where it is large enough.
        dtype: of the Jacobians, whose rounding scores have.
        sketch_rows: rows of the sketch; 0 if all Jacobians are exact.
        sketch_spearman: cross-validated rank correlation of sketched with exact volumes; ``None`` if all are exact.
    """

    z: Tensor
    z_white: Tensor | None
    log_singular: Tensor
    log_singular_white: Tensor | None
    rank: int
    scores: Scores
    knn: Tensor | None
    ood: Mapping[str, Scores] = field(default_factory=dict)
    problem: str | None = None
    few: str | None = None
    dtype: torch.dtype = torch.float32
    sketch_rows: int = 0
    sketch_spearman: float | None = None


@dataclass(frozen=True)
class Method:
    """How an encoder is read: the same on every process.

    Attributes:
        encode: maps (B, ...) inputs to (B, K), in eval mode.
        to_device: brings CPU inputs to the encoder.
        device: of the encoder.
        rank: r of the log density; ``None`` cuts the mean spectrum at its widest gap.
        dtype: of the encoder's computations.
        chunk: samples a pass; ``None`` chooses by size and free memory.
        strategy: see :func:`jepa_monitor.jacobian_gram`.
        progress: is told how many samples got a Jacobian.
        notice: called with what the user should know of the encoder.
    """

    encode: Encode
    to_device: Callable[[Tensor], Tensor]
    device: torch.device
    rank: int | None = None
    dtype: torch.dtype = torch.float32
    chunk: int | None = None
    strategy: Strategy = "auto"
    progress: Callable[[int], None] | None = None
    notice: Callable[[str], None] = warnings.warn

    def embeddings(self, shard: Shard) -> Tensor:
        """(N, K) of all processes' samples."""
        local = together(lambda: embed(self.encode, self.to_device(shard.inputs)), device=self.device)
        return gather_by_index(shard.indices, local)

    def of_grams(self, function: Callable[[Tensor], Tensor], shard: Shard, *, rows: Tensor | None = None) -> Tensor:
        """(N, ...) ``function`` of the Gram matrices (n, K, K) of all processes' samples."""

        def local() -> Tensor:
            parts = map_grams(
                lambda gram, _: function(gram),
                self.encode,
                self.to_device(shard.inputs),
                rows=rows,
                strategy=self.strategy,
                chunk=self.chunk,
                progress=self.progress,
                notice=self.notice,
            )
            return torch.cat(parts)

        return gather_by_index(shard.indices, together(local, device=self.device))


@dataclass(frozen=True)
class _Spectra:
    """Log singular values, largest first: (n, min(K, D)) and, of the whitened embedding, (n, L) or ``None``."""

    plain: Tensor
    white: Tensor | None

    @classmethod
    def of(cls, gram: Tensor, white: EmbeddingReference | None, *, input_size: int) -> _Spectra:
        """Of Gram matrices (n, K, K)."""
        plain = log_singular_values(gram, input_size=input_size)
        return cls(plain, None if white is None else log_singular_values(white.to(gram.device).whiten_gram(gram)))

    def rank(self, given: int | None) -> int:
        """r, the same for all samples; 0 where nothing is whitened."""
        if self.white is None:
            return 0
        return auto_rank(self.white.nanmean(0)) if given is None else min(given, self.white.shape[1])

    def volumes(self, rank: int) -> tuple[Tensor, Tensor | None]:
        """(n,) nats: that of Eq. 5, and that of the r largest whitened directions."""
        return self.plain.sum(1), None if self.white is None else self.white[:, :rank].sum(1)


@dataclass(frozen=True)
class _Measured:
    """Spectra of the probe, and log volumes by set: Eq. 5's and those of the r largest whitened directions."""

    spectra: _Spectra
    volumes: Mapping[str, tuple[Tensor, Tensor | None]]
    rank: int
    sketch_rows: int = 0
    sketch_spearman: float | None = None


def read(
    method: Method,
    probe: Shard,
    *,
    facts: ProbeFacts,
    ood: Mapping[str, Shard],
    num_samples: int,
    plan: Plan,
    sparing: Sparing,
) -> Readings:
    """Measure an encoder on a probe. Every process calls it with its shards; all get the same readings.

    Args:
        method: the encoder, and how its Jacobians are computed.
        probe: this process's shard.
        facts: of the probe.
        ood: shards of further sets, in the same order on every process.
        num_samples: of the probe, over all processes.
        plan: how many samples get a Jacobian, and whether exactly.
        sparing: takes a note of further sets, and of the reference, that fail and are left out.
    """
    z = method.embeddings(probe)
    reference, z_reference, knn = facts.reference, None, None
    if reference is not None:

        def of_reference() -> tuple[Tensor, Tensor]:
            embeddings = method.embeddings(reference)
            return embeddings, knn_distance(z, embeddings)

        z_reference, knn = sparing.attempt("the reference", of_reference, tags.OF_REFERENCE) or (None, None)
    # z is equal on all processes, so that from here on they all go the same way
    few = z_reference is not None and len(z) <= z.shape[1] < len(z_reference)
    white, problem = _whitening(z_reference if few and z_reference is not None else z)
    count = min(plan.samples, num_samples)
    sets = {name: _start_of(shard, count) for name, shard in {"": probe, **ood}.items()}
    if plan.sketch and can_sketch(count, z.shape[1]):
        measured = _sketched(
            method, sets, _start_of(probe, CALIBRATION_SAMPLES), white, sketch_rows(z.shape[1]), sparing
        )
    else:
        measured = _exact(method, sets, white, sparing)
    z_white = None if white is None else white.whiten(z)

    def score(name: str, shard: Shard) -> Scores:
        plain, volume = measured.volumes[name]
        density = torch.full_like(plain, torch.nan)
        if white is not None and z_white is not None and volume is not None:
            z_set = white.whiten(method.embeddings(shard)) if name else z_white
            density = volume - 0.5 * z_set[: len(volume)].square().sum(1)
        return Scores(plain[:count], density[:count])

    scores = sparing.attempt_each(score, {name: sets[name] for name in measured.volumes})
    return Readings(
        z=z,
        z_white=z_white,
        log_singular=measured.spectra.plain,
        log_singular_white=measured.spectra.white,
        rank=measured.rank,
        scores=scores.pop(""),
        knn=knn,
        ood=scores,
        problem=problem,
        few=f"{len(z)} probe samples cannot whiten {z.shape[1]} coordinates, so those of the reference do."
        if few
        else None,
        dtype=method.dtype,
        sketch_rows=measured.sketch_rows,
        sketch_spearman=measured.sketch_spearman,
    )


def try_out(method: Method, probe: Shard, *, sets: int) -> Trial:
    """Time the encoder on the first samples of a probe, as many as take a moment. Every process calls it.

    Args:
        method: the encoder, and how its Jacobians are computed.
        probe: this process's shard.
        sets: as large as the probe, itself among them, that will be measured.
    """
    method = replace(method, progress=None)
    most = len(probe.indices) * process_count()

    def seconds_a_sample(function: Callable[[Shard], Tensor], count: int) -> float:
        started = time.monotonic()
        function(_start_of(probe, count))
        return from_first(time.monotonic() - started) / count

    def jacobians(shard: Shard) -> Tensor:
        return method.of_grams(lambda gram: gram[:, 0], shard)

    count = min(2 * process_count(), most)
    seconds_a_sample(jacobians, count)  # warms up
    per_jacobian = math.inf  # the least, because other work on the machine only adds
    while True:
        count = min(4 * count, most)
        seconds = seconds_a_sample(jacobians, count)
        per_jacobian = min(per_jacobian, seconds)
        if seconds * count >= TRIAL_SECONDS or count == most:
            break
    embedded = min(EMBEDDED_IN_TRIAL * process_count(), most)
    per_embedding = min(seconds_a_sample(method.embeddings, embedded) for _ in range(2))
    return Trial(
        per_jacobian=sets * per_jacobian,
        per_forward=per_embedding * process_count(),
        embeddings=sets * per_embedding * most,
        embedding_size=method.embeddings(_start_of(probe, 1)).shape[1],
    )


def _start_of(shard: Shard, count: int) -> Shard:
    """This process's part of the first ``count`` samples; equally many on each, so a few more may be among them."""
    mine = slice(0, -(-count // process_count()))
    return Shard(shard.indices[mine], shard.inputs[mine])


def _whitening(z: Tensor) -> tuple[EmbeddingReference | None, str | None]:
    """The probe's whitening, or the reason why there is none."""
    try:
        return EmbeddingReference.fit(z), None
    except ValueError as error:
        return None, str(error)


def _exact(method: Method, sets: Mapping[str, Shard], white: EmbeddingReference | None, sparing: Sparing) -> _Measured:

    def spectra_of(_: str, shard: Shard) -> _Spectra:
        def both(gram: Tensor) -> Tensor:
            found = _Spectra.of(gram, white, input_size=shard.inputs[0].numel())
            return found.plain if found.white is None else torch.cat([found.plain, found.white], dim=1)

        joint = method.of_grams(both, shard)
        directions = joint.shape[1] if white is None else joint.shape[1] - len(white.whitener)
        return _Spectra(joint[:, :directions], None if white is None else joint[:, directions:])

    spectra = sparing.attempt_each(spectra_of, sets)
    rank = spectra[""].rank(method.rank)
    return _Measured(spectra[""], {name: found.volumes(rank) for name, found in spectra.items()}, rank)


def _sketched(
    method: Method,
    sets: Mapping[str, Shard],
    calibration: Shard,
    white: EmbeddingReference | None,
    rows: int,
    sparing: Sparing,
) -> _Measured:
    """Exact Gram matrices of some probe samples calibrate one sketch for each of the two volumes."""
    gram = method.of_grams(lambda gram: gram, calibration)
    size = calibration.inputs[0].numel()
    spectra = _Spectra.of(gram, white, input_size=size)
    rank = spectra.rank(method.rank)

    def target(which: int) -> Callable[[Tensor], Tensor]:
        def volume(gram: Tensor) -> Tensor:
            return _Spectra.of(gram, white, input_size=size).volumes(rank)[which]  # type: ignore[return-value]  # asked for [1] only if whitened

        return volume

    try:
        sketches = [Sketch.calibrate(gram, rows, target=target(which)) for which in range(1 if white is None else 2)]
    except ValueError:  # too few finite Jacobians; values of other samples, or exact ones, would be other values
        nothing = {
            name: gather_by_index(shard.indices, torch.full((len(shard.indices),), torch.nan, device=method.device))
            for name, shard in sets.items()
        }
        return _Measured(spectra, {name: (none, none) for name, none in nothing.items()}, rank, rows, math.nan)

    def estimates(sketched: Tensor) -> Tensor:
        blocks = sketched.cpu().split([len(sketch.rows) for sketch in sketches], dim=1)
        own = [block.split([len(sketch.rows) for sketch in sketches], dim=2)[i] for i, block in enumerate(blocks)]
        found = [sketch.estimate(block) for sketch, block in zip(sketches, own, strict=True)]
        return torch.stack(found, dim=1).to(sketched.device)

    def volumes_of(_: str, shard: Shard) -> tuple[Tensor, Tensor | None]:
        values = method.of_grams(estimates, shard, rows=torch.cat([sketch.rows for sketch in sketches]))
        return values[:, 0], values[:, 1] if white is not None else None

    volumes = sparing.attempt_each(volumes_of, sets)
    return _Measured(spectra, volumes, rank, rows, sketches[-1].cross_validated_spearman)


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
        for quantile, label in ((0.1, "q10"), (0.5, "median"), (0.9, "q90")):
            value = float(np.quantile(finite, quantile)) if len(finite) else math.nan
            values[f"density/{name}_{label}(nats)"] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on embeddings that are not finite: jacobian/nonfinite_fraction counts them
        values |= {f"gaussianity/{name}": value for name, value in gaussianity(readings.z).items()}
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


def problems(readings: Readings, facts: ProbeFacts) -> list[str]:
    """Why values of this measurement are NaN or not to be trusted, one sentence each; empty if all are."""
    found = [f"there is no log density: {readings.problem}"] if readings.problem else []
    if readings.few:
        found.append(readings.few)
    if bool(is_imprecise(readings.log_singular, readings.dtype).any()):
        found.append(
            f"JEPA-SCORE of some samples (jacobian/imprecise_fraction) may be off by more than {TOLERANCE_NATS} nats, "
            f"because singular values above eps = {EPS:g} are near the rounding error of {readings.dtype}: measure a "
            "float64 module, or rank by log_density, which counts r directions."
        )
    unfit = [] if readings.problem else [("log density", readings.scores.log_density)]
    unfit += [("JEPA-SCORE", readings.scores.jepa_score), *((f"{name} truth", t) for name, t in facts.truths.items())]
    return found + [f"{name} cannot be ranked: {why}" for name, values in unfit if (why := why_unrankable(values))]
