"""Readings: what one measurement gives, and scalars and pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .runtime.concise import Concise


@dataclass(frozen=True, repr=False)
class Scores(Concise):
    """Scores of one set of samples, (N,) nats each: Eq. 5 and the log density."""

    jepa_score: Tensor
    log_density: Tensor

    def first(self, count: int) -> Scores:
        """The scores of the first ``count`` samples."""
        return Scores(self.jepa_score[:count], self.log_density[:count])


@dataclass(frozen=True, repr=False)
class Readings(Concise):
    """Everything read from an encoder at one step, in probe order, on the CPU, equal on all processes.

    Attributes:
        z: (N, K) embeddings.
        z_white: (N, L) whitened ones, or ``None`` where they cannot be whitened.
        log_singular: (C, min(K, D)) log singular values of the Jacobian, clipped, largest first, of the C samples with
            an exact Jacobian.
        log_singular_white: (C, L) those of the whitened embedding, or ``None``.
        rank: r of the log density; 0 where there is none.
        scores: scores of the first n samples of the probe.
        knn: (N,) distance to the nearest reference embeddings, or ``None``.
        ood: scores of further sets.
        problem: why there is no log density, or ``None``.
        few: how embeddings of a probe that is too small were whitened; ``None`` where it is large enough.
        dtype: precision of the Jacobians, whose rounding scores have.
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
