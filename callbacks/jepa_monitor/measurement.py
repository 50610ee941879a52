"""One measurement: from an encoder and a probe to per-sample readings.

`read` is the only place that meets other processes: it is the same sequence of collectives on each of them, and what a
process does by itself in between is agreed on before the next one.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from . import tags
from .density import (
    EmbeddingReference,
    Encode,
    Sketch,
    Strategy,
    auto_rank,
    leading_volume,
    log_density_from_volume,
    log_singular_values,
    map_grams,
)
from .probe.facts import ProbeFacts
from .probe.shards import Shard, gather_by_index
from .probe.sparing import PROBE, Sparing
from .ranking import knn_distance
from .readings import Readings, Scores
from .runtime.distributed import broadcast, fail_together, process_count
from .runtime.encoder import embed
from .runtime.plan import CALIBRATION_SAMPLES, Plan, Trial, can_sketch, sketch_rows

TRIAL_SECONDS = 0.2  # the last pass of a trial takes as long
EMBEDDED_IN_TRIAL = 128  # samples on each process


@dataclass(frozen=True)
class Method:
    """An encoder and the way it is read: the same on every process.

    Attributes:
        encode: maps (B, ...) inputs to (B, K), in eval mode.
        to_device: brings CPU inputs to the encoder.
        device: where the encoder is.
        rank: r of the log density; ``None`` cuts the mean spectrum at its widest gap.
        dtype: precision of the encoder's computations.
        chunk: samples a pass; ``None`` chooses by size and free memory.
        strategy: see :func:`jepa_monitor.jacobian_gram`.
        progress: called with the number of samples that got a Jacobian.
        notice: called with a sentence that the user should read.
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
        """Embed all processes' samples: (N, K)."""
        with fail_together(self.device):
            local = embed(self.encode, self.to_device(shard.inputs))
        return gather_by_index(shard.indices, local)

    def map_grams(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], shard: Shard, *, rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Apply a function to the Gram matrices of all processes' samples, and gather each of its results.

        Args:
            function: maps (n, K, K), or (n, M, M) with ``rows``, to tensors (n, ...).
            shard: this process's samples.
            rows: (M, K) combinations of outputs to differentiate instead of all K.

        Returns:
            (N, ...) each.
        """
        with fail_together(self.device):
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
            local = [torch.cat(values) for values in zip(*parts, strict=True)]
        return tuple(gather_by_index(shard.indices, values) for values in local)


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
        facts: what is known of the probe without an encoder.
        ood: shards of further sets, in the same order on every process.
        num_samples: size of the probe, over all processes.
        plan: how many samples get a Jacobian, and whether exactly.
        sparing: takes a note of further sets, and of the reference, that fail and are left out.
    """
    z = method.embeddings(probe)
    z_reference, knn = None, None
    with sparing.attempt("the reference", tags.REFERENCE_TAGS):
        z_reference, knn = _embed_reference(method, facts.reference, z)
    # z is equal on all processes, so that from here on they all go the same way
    embedding, problem, few = _fit_embedding(z, z_reference)
    reader = _Reader(method, embedding, sparing)
    count = min(plan.samples, num_samples)
    sets = {name: _first(shard, count) for name, shard in {PROBE: probe, **ood}.items()}
    if plan.sketch and can_sketch(count, z.shape[1]):
        measured = reader.sketch(sets, _first(probe, CALIBRATION_SAMPLES), rows=sketch_rows(z.shape[1]))
    else:
        measured = reader.measure(sets)
    z_white = None if embedding is None else embedding.whiten(z)
    scores = {name: found.first(count) for name, found in reader.score(measured, sets, z_white).items()}
    return Readings(
        z=z,
        z_white=z_white,
        log_singular=measured.spectra[0],
        log_singular_white=measured.spectra[1] if embedding else None,
        rank=measured.rank,
        scores=scores.pop(PROBE),
        knn=knn,
        ood=scores,
        problem=problem,
        few=few,
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
    jacobians = partial(method.map_grams, lambda gram: (gram[:, 0],))
    count = min(2 * process_count(), most)
    _seconds_a_sample(jacobians, probe, count)  # warms up
    per_jacobian = math.inf  # the least, because other work on the machine only adds
    while True:
        count = min(4 * count, most)
        seconds = _seconds_a_sample(jacobians, probe, count)
        per_jacobian = min(per_jacobian, seconds)
        if seconds * count >= TRIAL_SECONDS or count == most:
            break
    embedded = min(EMBEDDED_IN_TRIAL * process_count(), most)
    per_embedding = min(_seconds_a_sample(method.embeddings, probe, embedded) for _ in range(2))
    return Trial(
        per_jacobian=sets * per_jacobian,
        per_forward=per_embedding * process_count(),
        embeddings=sets * per_embedding * most,
        embedding_size=method.embeddings(_first(probe, 1)).shape[1],
    )


def _seconds_a_sample(run: Callable[[Shard], object], probe: Shard, count: int) -> float:
    """Time a run on the first samples of a probe by the first process's clock."""
    started = time.monotonic()
    run(_first(probe, count))
    return broadcast(time.monotonic() - started) / count


def _first(shard: Shard, count: int) -> Shard:
    """This process's part of the first ``count`` samples; equally many on each, so a few more may be among them."""
    mine = slice(0, -(-count // process_count()))
    return Shard(shard.indices[mine], shard.inputs[mine])


def _embed_reference(method: Method, reference: Shard | None, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Embeddings (M, K) of the reference, if there is one, and the distances (N,) of the probe's to the nearest."""
    if reference is None:
        return None, None
    z_reference = method.embeddings(reference)
    return z_reference, knn_distance(z, z_reference)


def _fit_embedding(z: Tensor, z_reference: Tensor | None) -> tuple[EmbeddingReference | None, str | None, str | None]:
    """Fit the density of embeddings to the probe's (N, K), or to the reference's (M, K) where those are too few.

    Returns:
        The density, or ``None``; why there is none, or ``None``; how few there were, or ``None``.
    """
    few = None
    if z_reference is not None and len(z) <= z.shape[1] < len(z_reference):
        few = f"{len(z)} probe samples cannot whiten {z.shape[1]} coordinates, so those of the reference do."
        z = z_reference
    try:
        return EmbeddingReference.fit(z), None, few
    except ValueError as error:
        return None, str(error), few


@dataclass(frozen=True)
class _Measured:
    """Spectra of the probe, and log volumes of all sets.

    Spectra and volumes are those of the embedding and, where it can be whitened, those of the whitened embedding.

    Attributes:
        spectra: (n, min(K, D)) and (n, L) log singular values, largest first.
        volumes: set to (n,) nats: Eq. 5's, and that of the r largest whitened directions.
        rank: r; 0 where nothing is whitened.
        sketch_rows, sketch_spearman: see :class:`Readings`.
    """

    spectra: tuple[Tensor, ...]
    volumes: Mapping[str, tuple[Tensor, ...]]
    rank: int
    sketch_rows: int = 0
    sketch_spearman: float | None = None


@dataclass(frozen=True)
class _Reader:
    """Measures sets of samples. Every process calls its methods in the same order.

    Attributes:
        method: the encoder, and how its Jacobians are computed.
        embedding: density of its embeddings; ``None`` where they cannot be whitened.
        sparing: takes a note of further sets that fail and are left out.
    """

    method: Method
    embedding: EmbeddingReference | None
    sparing: Sparing

    def measure(self, sets: Mapping[str, Shard]) -> _Measured:
        """Measure volumes by exact Jacobians."""
        spectra = self.sparing.attempt_each(self._spectra_of, sets)
        rank = self._rank(spectra[PROBE])
        volumes = {name: _volumes(found, rank) for name, found in spectra.items()}
        return _Measured(spectra[PROBE], volumes, rank)

    def sketch(self, sets: Mapping[str, Shard], calibration: Shard, *, rows: int) -> _Measured:
        """Estimate volumes by a sketch of each of the two, calibrated on exact Jacobians of some probe samples."""
        embedding, size = self.embedding, calibration.inputs.shape[1:].numel()
        (gram,) = self.method.map_grams(lambda gram: (gram,), calibration)
        spectra = _spectra(gram, input_size=size, embedding=embedding)
        rank = self._rank(spectra)
        targets = [lambda gram: log_singular_values(gram, input_size=size).sum(1)]
        if embedding is not None:
            targets.append(lambda gram: leading_volume(embedding.log_singular_values(gram), rank))
        try:
            sketches = [Sketch.calibrate(gram, rows, target=target) for target in targets]
        except ValueError:  # too few finite Jacobians; values of other samples, or exact ones, would be other values
            volumes = {name: (self._nan(shard),) * len(targets) for name, shard in sets.items()}
            return _Measured(spectra, volumes, rank, rows, math.nan)
        volumes = self.sparing.attempt_each(partial(self._estimates_of, sketches), sets)
        return _Measured(spectra, volumes, rank, rows, sketches[-1].cross_validated_spearman)

    def score(self, measured: _Measured, sets: Mapping[str, Shard], z_white: Tensor | None) -> dict[str, Scores]:
        """Score the samples whose volumes were measured; ``z_white`` are the probe's whitened embeddings."""
        found = {name: sets[name] for name in measured.volumes}
        return self.sparing.attempt_each(partial(self._scores_of, measured, z_white), found)

    def _spectra_of(self, _: str, shard: Shard) -> tuple[Tensor, ...]:
        spectra = partial(_spectra, input_size=shard.inputs.shape[1:].numel(), embedding=self.embedding)
        return self.method.map_grams(spectra, shard)

    def _estimates_of(self, sketches: Sequence[Sketch], _: str, shard: Shard) -> tuple[Tensor, ...]:
        rows = torch.cat([sketch.rows for sketch in sketches])
        return self.method.map_grams(partial(_estimates, sketches), shard, rows=rows)

    def _scores_of(self, measured: _Measured, z_white: Tensor | None, name: str, shard: Shard) -> Scores:
        jepa_score, *white = measured.volumes[name]
        if self.embedding is None or z_white is None:
            return Scores(jepa_score, torch.full_like(jepa_score, torch.nan))
        (volume,) = white
        z = self.embedding.whiten(self.method.embeddings(shard)) if name != PROBE else z_white[: len(volume)]
        return Scores(jepa_score, log_density_from_volume(volume, z, self.embedding.log_density))

    def _rank(self, spectra: tuple[Tensor, ...]) -> int:
        """Rank r, the same for all samples; 0 where nothing is whitened."""
        if self.embedding is None:
            return 0
        white = spectra[1]
        return auto_rank(white.nanmean(0)) if self.method.rank is None else min(self.method.rank, white.shape[1])

    def _nan(self, shard: Shard) -> Tensor:
        """NaN for all processes' samples, (N,)."""
        local = torch.full((len(shard.indices),), torch.nan, device=self.method.device)
        return gather_by_index(shard.indices, local)


def _spectra(gram: Tensor, *, input_size: int, embedding: EmbeddingReference | None) -> tuple[Tensor, ...]:
    plain = log_singular_values(gram, input_size=input_size)
    return (plain,) if embedding is None else (plain, embedding.to(gram.device).log_singular_values(gram))


def _volumes(spectra: tuple[Tensor, ...], rank: int) -> tuple[Tensor, ...]:
    plain, *white = spectra
    return plain.sum(1), *(leading_volume(values, rank) for values in white)


def _estimates(sketches: Sequence[Sketch], gram: Tensor) -> tuple[Tensor, ...]:
    """Estimate (n,) by each sketch from S G S^T (n, M, M), S being the rows of all of them, one after the other."""
    found, start = [], 0
    for sketch in sketches:
        own = slice(start, start + len(sketch.rows))
        found.append(sketch.estimate(gram.cpu()[:, own, own]).to(gram.device))
        start = own.stop
    return tuple(found)
