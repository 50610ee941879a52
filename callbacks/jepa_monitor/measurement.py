"""One measurement: from an encoder and a probe to per-sample readings.

`read` is the only place that meets other processes: it is the same sequence of collectives on each of them, and what a
process does by itself in between is agreed on before the next one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from . import tag_groups
from .density import leading_volume, log_singular_values, subspace_rows
from .fits import Fits, VolumeFit
from .method import Method
from .probe.facts import ProbeFacts
from .probe.reference import FurtherReference
from .probe.shards import Shard, gather_by_index
from .probe.sparing import PROBE, Sparing
from .ranking import knn_distance
from .readings import KEEP, Readings, Scores
from .runtime.distributed import broadcast, fail_together, process_count
from .runtime.plan import CALIBRATION_SAMPLES, Plan, Trial, can_estimate

TRIAL_SECONDS = 0.1  # the last pass of a trial takes as long, twice
MORE_SAMPLES = 1.5  # times as long a pass of four times as many samples takes at least, where samples decide
HOLD_UP = 0.5  # seconds: what takes less is measured twice, as a collection of garbage would count too much in it
EMBEDDED_IN_TRIAL = 128  # samples on each process


def read(
    method: Method,
    probe: Shard,
    *,
    facts: ProbeFacts,
    ood: Mapping[str, Shard],
    num_samples: int,
    plan: Plan,
    sparing: Sparing,
    further: FurtherReference | None = None,
) -> Readings:
    """Measure an encoder on a probe. Every process calls it with its shards; all get the same readings.

    Args:
        method: the encoder, and how its Jacobians are computed.
        probe: this process's shard.
        facts: what is known of the probe without an encoder.
        ood: shards of further sets, in the same order on every process.
        num_samples: size of the probe, over all processes.
        plan: how many samples, and of how many sets, get a Jacobian, and whether exactly.
        sparing: takes a note of further sets, and of the reference, that fail and are left out.
        further: reference samples beyond those of the facts.
    """
    z = method.embeddings(probe)
    z_reference, knn, features = None, None, None
    if facts.components is not None:
        with sparing.attempt("the module's method features", (KEEP,)):
            features = z if method.represent is None else method.features(probe)
    with sparing.attempt("the reference", tag_groups.reference_tags(ood)):
        z_reference, knn = _embed_reference(method, facts.reference, further, z)
    # z is equal on all processes, so that from here on they all go the same way
    size = _input_size(probe)
    fits = Fits.of(z, z_reference, density=method.embedding_density, rank=method.rank, most_directions=size)
    of_probe = {"embedding": fits.of_probe, **({} if knn is None else {"knn": -knn})}
    reader = _Reader(method, fits, of_probe, z_reference, sparing)
    count = min(plan.samples, num_samples)
    whole = {PROBE: probe, **ood}
    sets = {name: _first(whole[name], count) for name in plan.with_jacobians(list(whole))}
    rows = subspace_rows(fits.rank, z.shape[1])
    if plan.subspace and can_estimate(count, rows, z.shape[1]):
        measured = reader.estimate(sets, _first(probe, CALIBRATION_SAMPLES), z, rows=rows)
    else:
        measured = reader.measure(sets)
    failed = sets.keys() - measured.volumes.keys()
    left = {name: shard for name, shard in whole.items() if name not in failed}
    found = sparing.attempt_each(partial(reader.score, measured), left)
    scores = {name: of_set.first(count) for name, of_set in found.items()}
    return Readings(
        z=z,
        z_white=None if fits.gaussian is None else fits.gaussian.whiten(z),
        log_singular=measured.spectra,
        rank=fits.rank,
        dimension=fits.dimension,
        scores=scores.pop(PROBE),
        gaussian=fits.gaussian_log_density(measured.spectra[:count], z),
        knn=knn,
        ood=scores,
        reference=fits.size,
        problem=fits.problem,
        problem_of_gaussian=fits.problem_of_gaussian,
        dtype=method.dtype,
        subspace_rows=measured.subspace_rows,
        subspace_spearman=measured.subspace_spearman,
        features=features,
    )


def try_out(method: Method, probe: Shard, whole: Callable[[Plan], Readings], *, sets: int) -> Trial:
    """Time the encoder on the first samples of a probe, as many as take a moment, and a whole measurement of few.

    Every process calls it.

    Args:
        method: the encoder, and how its Jacobians are computed.
        probe: this process's shard.
        whole: measures by a plan.
        sets: as large as the probe, itself among them, that will be measured.
    """
    most = len(probe.indices) * process_count()
    jacobians = partial(method.map_grams, lambda gram: (gram[:, 0],))
    count = min(2 * process_count(), most)
    _seconds_a_sample(jacobians, probe, count)  # warms up
    before = count * _seconds_a_sample(jacobians, probe, count)
    per_jacobian = math.inf  # the least, because other work on the machine only adds
    while True:
        count = min(4 * count, most)
        seconds = _seconds_a_sample(jacobians, probe, count)
        if TRIAL_SECONDS <= seconds * count < HOLD_UP:
            seconds = min(seconds, _seconds_a_sample(jacobians, probe, count))
        per_jacobian = min(per_jacobian, seconds)
        # where more samples hardly take longer, as on a machine that is busy, the pass is timed and not its samples
        if count == most or max(TRIAL_SECONDS, MORE_SAMPLES * before) <= seconds * count:
            break
        before = seconds * count
    embedded = min(EMBEDDED_IN_TRIAL * process_count(), most)
    per_embedding = min(_seconds_a_sample(method.embeddings, probe, embedded) for _ in range(2))
    few = min(2 * process_count(), most)
    readings, seconds = _timed(whole, Plan(few))
    if seconds < HOLD_UP:
        seconds = min(seconds, _timed(whole, Plan(few))[1])
    return Trial(
        per_jacobian=per_jacobian,
        sets=sets,
        per_reference=per_embedding,
        per_forward=per_embedding * process_count(),
        rest=max(0.0, seconds - few * sets * per_jacobian),
        embedding_size=readings.z.shape[1],
        rank=readings.rank or readings.z.shape[1],
    )


def _timed(whole: Callable[[Plan], Readings], plan: Plan) -> tuple[Readings, float]:
    """Measure by a plan, and return the seconds by the first process's clock, too."""
    started = time.monotonic()
    readings = whole(plan)
    return readings, broadcast(time.monotonic() - started)


def _seconds_a_sample(run: Callable[[Shard], object], probe: Shard, count: int) -> float:
    """Time a run on the first samples of a probe by the first process's clock."""
    started = time.monotonic()
    run(_first(probe, count))
    return broadcast(time.monotonic() - started) / count


def _first(shard: Shard, count: int) -> Shard:
    """This process's part of the first ``count`` samples; equally many on each, so a few more may be among them."""
    mine = slice(0, -(-count // process_count()))
    return Shard(shard.indices[mine], shard.inputs[mine])


def _embed_reference(
    method: Method, reference: Shard | None, further: FurtherReference | None, z: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Embeddings (M, K) of the reference, if there is one, and the distances (N,) of the probe's to the nearest."""
    if reference is None:
        return None, None
    z_reference = method.embeddings(reference)
    if further is not None and further.shard is not None and further.is_new is not None:
        z_reference = torch.cat([z_reference, method.embeddings(further.shard)[further.is_new]])
    return z_reference, knn_distance(z, z_reference)


@dataclass(frozen=True)
class _Volumes:
    """Log volumes of one set, (n,) nats each.

    Attributes:
        eq5: that of Eq. 5; NaN for a sample without an exact Jacobian.
        leading: that of the r largest directions, in the coordinates of the density; ``None`` where there is none.
    """

    eq5: Tensor
    leading: Tensor | None = None


WITHOUT_JACOBIANS = _Volumes(*2 * (torch.empty(0, dtype=torch.float64),))


@dataclass(frozen=True)
class _Measured:
    """Spectra of the probe, and log volumes of all sets.

    Attributes:
        spectra: (n, min(K, D)) log singular values, largest first.
        volumes: log volumes by set.
        subspace_rows, subspace_spearman: see :class:`Readings`.
    """

    spectra: Tensor
    volumes: Mapping[str, _Volumes]
    subspace_rows: int = 0
    subspace_spearman: float | None = None


@dataclass(frozen=True)
class _Reader:
    """Measures sets of samples. Every process calls its methods in the same order.

    Attributes:
        method: the encoder, and how its Jacobians are computed.
        fits: densities of its embeddings.
        of_probe: scores of the probe that need no Jacobian, see :class:`Scores`.
        z_reference: (M, K) embeddings of the reference; ``None`` without one.
        sparing: takes a note of further sets that fail and are left out.
    """

    method: Method
    fits: Fits
    of_probe: Mapping[str, Tensor]
    z_reference: Tensor | None
    sparing: Sparing

    def measure(self, sets: Mapping[str, Shard]) -> _Measured:
        """Measure volumes by exact Jacobians."""
        found = self.sparing.attempt_each(self._exact_of, sets)
        return _Measured(found[PROBE][0], {name: volumes for name, (_, volumes) in found.items()})

    def estimate(self, sets: Mapping[str, Shard], calibration: Shard, z: Tensor, *, rows: int) -> _Measured:
        """Estimate volumes in a subspace that is calibrated on exact Jacobians of some probe samples.

        Eq. 5 is that of these samples alone: few rows do not see the small singular values that it counts.
        """
        (gram,) = self.method.map_grams(lambda gram: (gram,), calibration)
        spectra = log_singular_values(gram, input_size=_input_size(calibration))
        estimator = None
        try:
            if self.fits.reference is not None:
                estimator = VolumeFit.calibrate(self.fits.reference, gram, z[: len(gram)])
        except ValueError as error:  # values of other samples, or exact ones, would be other values
            self.method.notice(f"there is no log density: {error}")
        volumes = dict(self.sparing.attempt_each(partial(self._estimates_of, estimator), sets))
        eq5 = torch.cat([spectra.sum(1), volumes[PROBE].eq5[len(gram) :]])
        volumes[PROBE] = replace(volumes[PROBE], eq5=eq5)
        spearman = math.nan if estimator is None else estimator.subspace.held_out_spearman
        return _Measured(spectra, volumes, rows, spearman)

    def _exact_of(self, name: str, shard: Shard) -> tuple[Tensor, _Volumes]:
        reference = self.fits.reference

        def reduced(gram: Tensor) -> tuple[Tensor, ...]:
            spectra = log_singular_values(gram, input_size=_input_size(shard))
            if reference is None:
                return (spectra,)
            own = spectra if reference.gaussian is None else reference.to(gram.device).log_singular_values(gram)
            return spectra, leading_volume(own, reference.rank)

        spectra, *leading = self.method.map_grams(reduced, shard)
        return spectra, _Volumes(spectra.sum(1), *leading)

    def _estimates_of(self, estimator: VolumeFit | None, name: str, shard: Shard) -> _Volumes:
        local = torch.full((len(shard.indices),), torch.nan, device=self.method.device, dtype=torch.float64)
        unknown = gather_by_index(shard.indices, local)
        if estimator is None:
            return _Volumes(unknown, unknown if self.fits.rank else None)
        z = self.method.embeddings(shard)
        with fail_together(self.method.device):
            rows = estimator.rows(z[shard.indices])
        (estimates,) = self.method.map_grams(lambda gram: (estimator.estimate(gram),), shard, rows=rows)
        return _Volumes(unknown, estimates)

    def score(self, measured: _Measured, name: str, shard: Shard) -> Scores:
        """Score a whole set by its embeddings, and the first samples, whose volumes were measured, with these too."""
        volumes = measured.volumes.get(name, WITHOUT_JACOBIANS)
        of_embeddings = self.of_probe
        if name != PROBE:
            of_embeddings = self.fits.score_embeddings(self.method.embeddings(shard), self.z_reference)
        if volumes.leading is None:
            return Scores(volumes.eq5, torch.full_like(volumes.eq5, torch.nan), of_embeddings)
        count = len(volumes.leading)
        return Scores(volumes.eq5, volumes.leading + of_embeddings["embedding"][:count], of_embeddings)


def _input_size(shard: Shard) -> int:
    return shard.inputs.shape[1:].numel()
