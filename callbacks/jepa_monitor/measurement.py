"""One measurement: from an encoder and a probe to per-sample readings.

`read` is the only place that meets other processes: it is the same sequence of collectives on each of them, and what a
process does by itself in between is agreed on before the next one.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from . import tags
from .density import EmbeddingReference, Encode, Sketch, Strategy, auto_rank, log_singular_values, map_grams
from .probe.facts import ProbeFacts
from .probe.samples import Shard, gather_by_index
from .probe.sparing import Sparing
from .ranking import knn_distance
from .runtime.budget import CALIBRATION_SAMPLES, Plan, Trial, can_sketch, sketch_rows
from .runtime.concise import Concise
from .runtime.distributed import broadcast, fail_together, process_count
from .runtime.encoder import embed

TRIAL_SECONDS = 0.2  # of the last pass of a trial
EMBEDDED_IN_TRIAL = 128  # samples on each process


@dataclass(frozen=True, repr=False)
class Scores(Concise):
    """Scores of one set of samples, (N,) nats each: Eq. 5 and the log density."""

    jepa_score: Tensor
    log_density: Tensor


@dataclass(frozen=True, repr=False)
class Readings(Concise):
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
        with fail_together(self.device):
            local = embed(self.encode, self.to_device(shard.inputs))
        return gather_by_index(shard.indices, local)

    def of_grams(self, function: Callable[[Tensor], Tensor], shard: Shard, *, rows: Tensor | None = None) -> Tensor:
        """(N, ...) ``function`` of the Gram matrices (n, K, K) of all processes' samples."""
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
            local = torch.cat(parts)
        return gather_by_index(shard.indices, local)


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
        return broadcast(time.monotonic() - started) / count

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
