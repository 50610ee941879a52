"""Rankings that need no Jacobian, fitted on one split and scored on another: what a score has to beat.

``score`` is higher where a sample is more typical. Mahalanobis and nearest neighbours separate the samples that they
were fitted to from more of the same with AUROC up to 1: ``score`` refuses a batch that was fitted as a whole, and
:func:`shares_samples` finds single copies.

Mahalanobis is written out, and runs on the device of its tensors. On one CPU thread scikit-learn's Ledoit-Wolf takes
longer from a few thousand samples on (``benchmarks/solvers.py``).
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..density import finite_rows, knn_distance, require_real
from ..runtime.concise import Concise

MAX_COMPONENTS = 64
SMALLEST_GAP = math.log(4.0)  # nats; a narrower one is none
CHUNK_ROWS = 4096


@dataclass(frozen=True, repr=False)
class GaussianBaseline(Concise):
    """One Gaussian fitted to inputs by principal components: the trivial ranking that needs no encoder.

    Attributes:
        mean: (D,).
        axes: (q, D) principal axes.
        deviations: (q,) standard deviations along them.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor

    @classmethod
    def fit(cls, inputs: Tensor) -> GaussianBaseline:
        """Fit to the finite of (N, ...) inputs; the components end where their spectrum has its gap, or at 64.

        Raises:
            ValueError: if there are fewer than 2 finite inputs, or they are all equal.
        """
        flat = inputs.flatten(1).double()
        flat = flat[torch.isfinite(flat).all(1)]
        if len(flat) < 2:
            raise ValueError("a Gaussian baseline needs at least 2 finite reference inputs.")
        mean = flat.mean(0)
        # from the smaller of the two covariances: D can be 150,000 where N is a thousand
        centred = flat - mean
        variances, vectors = torch.linalg.eigh(
            centred @ centred.T if len(flat) < flat.shape[1] else centred.T @ centred
        )
        count = min(MAX_COMPONENTS, int((variances > 1e-10 * variances[-1]).sum()), max(len(flat) // 10, 1))
        if not float(variances[-1]) > 0.0:
            raise ValueError("a Gaussian baseline needs reference inputs that differ.")
        variances, vectors = variances.flip(0)[:count], vectors.flip(1)[:, :count]
        deviations = (variances / (len(flat) - 1)).sqrt()
        kept = _up_to_gap(deviations.log())
        axes = vectors.T if len(vectors) == flat.shape[1] else (centred.T @ vectors / variances.sqrt()).T
        return cls(mean, axes[:kept].contiguous(), deviations[:kept])

    def score(self, inputs: Tensor) -> Tensor:
        """Log density up to a constant, (N,) nats."""
        coordinates = (inputs.flatten(1).double() - self.mean) @ self.axes.T / self.deviations
        return -0.5 * coordinates.square().sum(1)


def _up_to_gap(log_deviations: Tensor) -> int:
    """Count the components before the widest gap between (q,) neighbours, largest first; all where none is wide."""
    gaps = log_deviations[:-1] - log_deviations[1:]
    if not len(gaps) or float(gaps.max()) < SMALLEST_GAP:
        return len(log_deviations)
    return int(gaps.argmax()) + 1


@dataclass(frozen=True, repr=False)
class Mahalanobis(Concise):
    """One Gaussian fitted to embeddings, its covariance shrunk towards a multiple of the identity.

    ``(1 - s) S + s tr(S) / D I`` with the s of Ledoit and Wolf (2004), so D may exceed the number of samples.

    Attributes:
        mean: (D,).
        factor: (D, D) lower Cholesky factor of the shrunk covariance.
        shrinkage: s, 0 to 1.
    """

    mean: Tensor
    factor: Tensor
    shrinkage: float
    _fitted: frozenset[bytes] = field(repr=False)

    @classmethod
    def fit(cls, reference: Tensor) -> Mahalanobis:
        """Fit to the finite of (N, D) embeddings; beside them it takes two (D, D) matrices in float64.

        Raises:
            ValueError: if there are fewer than 2 finite embeddings, they are all equal, or the covariance is singular
                after shrinkage.
        """
        rows = finite_rows(reference)
        if len(rows) < 2:
            raise ValueError("a Mahalanobis baseline needs at least 2 finite reference embeddings.")
        mean, covariance, shrinkage = _ledoit_wolf(rows)
        if not float(covariance.trace()) > 0.0:
            raise ValueError("a Mahalanobis baseline needs reference embeddings that differ.")
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed) or float(factor.diagonal().min()) < 1e-7 * float(factor.diagonal().max()):
            raise ValueError(
                "the shrunk covariance is singular: a Mahalanobis baseline needs more reference embeddings."
            )
        return cls(mean, factor, shrinkage, frozenset(_digests(rows)))

    def score(self, z: Tensor) -> Tensor:
        """-1/2 the squared distance, (N,) nats: the log density up to a constant.

        Raises:
            ValueError: if all of several different samples are exact copies of what it was fitted to.
        """
        _refuse_in_sample(z, self._fitted)
        centred = (rows.double() - self.mean for rows in z.flatten(1).split(CHUNK_ROWS))
        white = [torch.linalg.solve_triangular(self.factor, rows.T, upper=False) for rows in centred]
        return -0.5 * torch.cat([columns.square().sum(0) for columns in white])


@dataclass(frozen=True, repr=False)
class NearestNeighbours(Concise):
    """Distance to the k-th nearest reference embedding, by :func:`knn_distance`.

    Attributes:
        reference: (M, D).
        k: number of the neighbour, counted from the nearest.
    """

    reference: Tensor
    k: int
    _fitted: frozenset[bytes] = field(repr=False)

    @classmethod
    def fit(cls, reference: Tensor, *, k: int = 10) -> NearestNeighbours:
        """Keep (M, D) embeddings, which are not copied."""
        return cls(reference, k, frozenset(_digests(reference)))

    def score(self, z: Tensor) -> Tensor:
        """Minus the distance, (N,).

        Raises:
            ValueError: if all of several different samples are exact copies of reference embeddings.
        """
        _refuse_in_sample(z, self._fitted)
        return -knn_distance(z, self.reference, k=self.k)


def shares_samples(z: Tensor, reference: Tensor) -> Tensor:
    """Mark those of (N, ...) samples that are exact copies of one of the (M, ...) reference samples: (N,) bool.

    A baseline fitted to the reference knows these; leave them out, or choose another split.
    """
    known = frozenset(_digests(reference))
    return torch.tensor([digest in known for digest in _digests(z)], dtype=torch.bool, device=z.device)


def fingerprints(samples: Tensor) -> Tensor:
    """(N,) int64 that differ where samples (N, ...) do: what processes can exchange in place of the samples."""
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in _digests(samples)])


def log_frobenius(gram: Tensor) -> Tensor:
    """Log Frobenius norm of the Jacobian, ``1/2 log tr G``: a warning, not a score.

    Cheap to estimate (Hutchinson) and so tempting, but the largest singular values drown the product of all of them,
    and it can reverse the ranking.

    Args:
        gram: (..., K, K) symmetric, float64.

    Returns:
        (...,) nats; NaN for a Gram matrix with a non-finite entry, -inf for one of zeros.
    """
    finite = torch.isfinite(gram).all(-1).all(-1)
    return torch.where(finite, 0.5 * gram.diagonal(dim1=-2, dim2=-1).sum(-1).log(), torch.nan)


def compressed_size(images: Tensor, *, low: float, high: float) -> np.ndarray:
    """Bytes of each image after zlib, at 8 bits per value: (N, ...) -> (N,).

    A score that follows it ranks complexity, not density.

    Args:
        images: (N, ...).
        low, high: range of values, the same for all images that are compared.
    """
    scaled = (images - low) / max(high - low, torch.finfo(torch.float32).tiny)
    pixels = (scaled.nan_to_num().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
    return np.array([len(zlib.compress(image.tobytes(), level=9)) for image in pixels], dtype=np.float64)


def _ledoit_wolf(rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (D,), shrunk covariance (D, D) and shrinkage of (N, D) embeddings, as Ledoit and Wolf (2004) estimate it."""
    count, size = rows.shape
    mean = rows.mean(0, dtype=torch.float64)
    covariance, fourth_moment = mean.new_zeros(size, size), mean.new_zeros(())
    for chunk in rows.split(CHUNK_ROWS):  # float64 copies of a chunk, not of the reference
        centred = chunk.double() - mean
        covariance += centred.T @ centred / count
        fourth_moment += centred.square().sum(1).square().sum() / count
    target = covariance.trace() / size * torch.eye(size, dtype=mean.dtype, device=mean.device)
    spread = (covariance - target).square().sum()
    error = ((fourth_moment - covariance.square().sum()) / count).clamp_min(0.0)
    shrinkage = float(torch.minimum(error, spread) / spread) if float(spread) > 0.0 else 0.0
    return mean, torch.lerp(covariance, target, shrinkage), shrinkage


def _digests(samples: Tensor) -> Iterator[bytes]:
    """16 bytes for each sample, equal for equal values whatever their precision."""
    for chunk in require_real(samples).detach().flatten(1).split(CHUNK_ROWS):
        rows = (chunk.double() + 0.0).cpu().numpy()  # + 0.0 turns -0.0 into 0.0
        yield from (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)


def _refuse_in_sample(z: Tensor, fitted: frozenset[bytes]) -> None:
    found = set(_digests(z))
    # one value may be shared by chance, as by all samples of a collapsed encoder
    if len(found) > 1 and found <= fitted:
        raise ValueError(f"all {len(z)} samples are among those the baseline was fitted to: score another split.")
