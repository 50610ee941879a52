"""Readings: what one measurement gives, and scalars and pictures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .density import IntrinsicDimension
from .runtime.concise import Concise

KEEP = "monitor/keep"


@dataclass(frozen=True, repr=False)
class Scores(Concise):
    """Scores of one set of N samples; higher is more typical.

    Attributes:
        jepa_score: (n,) Eq. 5 of the first n, in nats; NaN without an exact Jacobian.
        log_density: (n,) log density, in nats.
        of_embeddings: (N,) scores that need no Jacobian, by name: ``embedding``, the log density of the embedding alone
            in nats, and, where there is a reference, ``knn``, minus the distance to the nearest reference embeddings.
    """

    jepa_score: Tensor
    log_density: Tensor
    of_embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    def first(self, count: int) -> Scores:
        """The same with the first ``count`` of what needs a Jacobian."""
        return replace(self, jepa_score=self.jepa_score[:count], log_density=self.log_density[:count])


@dataclass(frozen=True, repr=False)
class Readings(Concise):
    """Everything read from an encoder at one step, in probe order, on the CPU, equal on all processes.

    Attributes:
        z: (N, K) embeddings.
        z_white: (N, L) ones whitened by the reference, or ``None`` where they cannot be whitened.
        log_singular: (C, min(K, D)) log singular values of the Jacobian, clipped, largest first, of the C samples with
            an exact Jacobian.
        rank: r of the log density; 0 where there is none.
        dimension: intrinsic dimension of the embeddings, or ``None``.
        scores: scores of the first n samples of the probe.
        gaussian: (min(C, n),) log density of those with an exact Jacobian if embeddings were Gaussian, in nats; NaN
            where they cannot be whitened.
        knn: (N,) distance to the nearest reference embeddings, or ``None``.
        ood: scores of further sets; those without Jacobians have scores of their embeddings alone.
        reference: number of reference embeddings; 0 where the density is fitted to the probe's.
        problem: why there is no log density, or ``None``.
        problem_of_gaussian: why there is none by a Gaussian although there is one, or ``None``.
        dtype: precision of the Jacobians, whose rounding scores have.
        subspace_rows: rows of a sample, of the r-dimensional volume's subspace; 0 if all Jacobians are exact.
        subspace_spearman: rank correlation of volumes in it with exact ones, held out; ``None`` if all are exact.
        features: (N, D) features before a projector, or embeddings where no others are known; ``None`` where they are
            not compared with inputs.
    """

    z: Tensor
    z_white: Tensor | None
    log_singular: Tensor
    rank: int
    dimension: IntrinsicDimension | None
    scores: Scores
    gaussian: Tensor
    knn: Tensor | None
    ood: Mapping[str, Scores] = field(default_factory=dict)
    reference: int = 0
    problem: str | None = None
    problem_of_gaussian: str | None = None
    dtype: torch.dtype = torch.float32
    subspace_rows: int = 0
    subspace_spearman: float | None = None
    features: Tensor | None = None
