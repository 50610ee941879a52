"""A density of embeddings on the manifold that they lie on, times a Gaussian tail across it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from ..errors import require_whole
from .densities import SMALLEST_VARIANCE, EmbeddingDensity, NeighbourDensity, finite_embeddings
from .neighbours import nearest

NEIGHBOURS = 50  # that show a tangent plane; more where it has many dimensions
NEIGHBOURS_A_DIMENSION = 3
MOST_QUERIES = 1_000  # reference embeddings whose neighbourhoods give what is usual
SHARED = 0.3  # of a covariance across the manifold: the rest is the neighbourhood's own
CHANCE = 0.99
STEP = 0.15  # standard deviation of the Gaussian, of the log of a distance
SHARE = 1 / 125  # of the reference that is a neighbourhood on the manifold
FEWEST = 32
ELEMENTS = 2**22  # of the neighbours that are held at a time


@dataclass(frozen=True, repr=False)
class ManifoldDensity(EmbeddingDensity):
    """Nearest neighbours on the manifold, times a Gaussian tail across it.

    log p(z) = log p_r(z) - 1/2 (max(0, log a(z) - log a_0) / 0.15)^2

    p_r is :class:`NeighbourDensity`, which ranks embeddings on the manifold and tells little of those beside it. a(z)
    is how far z lies beside the manifold: the length of z less the mean of its nearest reference embeddings, without
    their r principal directions, in units of what is usual there. With an offset y and neighbours X (k, L), both
    centred, without those directions, and in coordinates in which neighbourhoods have the mean covariance I across,
    a^2 = y^T (0.7 X^T X / (k - 1) + 0.3 I)^-1 y.

    Noise alone makes log a vary. Of a Gaussian with the other L - r dimensions a is chi-distributed, and up to its
    99th percentile, measured from the median of a over the reference, the density is that on the manifold: where all
    variation across is noise, it does not disturb the ranking.

    Attributes:
        along: density on the manifold.
        whitener: (L, K) map to the coordinates of a.
        neighbours: k.
        log_start: log a_0; infinite where the manifold fills all dimensions.
    """

    along: NeighbourDensity
    whitener: Tensor
    neighbours: int
    log_start: float

    @classmethod
    def fit(cls, z: Tensor, *, dimension: float | None = None, k: int | None = None, seed: int = 0) -> ManifoldDensity:
        """Fit to the finite of (M, K) embeddings.

        Args:
            z: (M, K) embeddings.
            dimension: r, above 0 and at most K; ``None`` is the rank of :func:`intrinsic_dimension`.
            k: neighbour of the density on the manifold, from 1 to M - 1; ``None`` is one in 125 of M, at least 32.
                That is fewer than :class:`NeighbourDensity` takes: the ranking on the manifold gains from more, what
                tells samples beside it from those on it gains from fewer.
            seed: seed of the draw of reference embeddings whose neighbourhoods are looked at.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: for a shape other than (M, K), a k or dimension out of range, when all embeddings are equal, or
                for complex ones.
        """
        require_whole(0, seed=seed)
        points = finite_embeddings(z)
        chosen = min(max(FEWEST, round(SHARE * len(points))), len(points) - 1) if k is None else k
        along = NeighbourDensity.fit(points, dimension=dimension, k=chosen)
        wanted = max(NEIGHBOURS, math.ceil(NEIGHBOURS_A_DIMENSION * along.dimension))
        fitted = cls(along, torch.eye(points.shape[1]).to(points), min(wanted, len(points) - 1), math.inf)
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
        own = order[:MOST_QUERIES].to(points.device)
        if fitted._across_dimensions < 1 or fitted.neighbours <= fitted.volume_rank + 1:
            return fitted
        fitted = replace(fitted, whitener=_whitener(fitted._mean_covariance(points[own], own)))
        if fitted._across_dimensions < 1:  # no neighbourhood has any extent across
            return fitted
        usual = float(fitted.log_across(points[own], own=own).nanmedian())
        chance = 0.5 * math.log(chi2.ppf(CHANCE, fitted._across_dimensions) / chi2.median(fitted._across_dimensions))
        return replace(fitted, log_start=usual + chance)

    @property
    def size(self) -> int:
        """Number of coordinates, K."""
        return self.along.size

    @property
    def volume_rank(self) -> int:
        """Number of directions along the manifold, r rounded."""
        return self.along.volume_rank

    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats."""
        return self.along.evaluate(z) + self._tail(z)

    def leave_one_out(self, own: Tensor | None = None) -> Tensor:
        """Log density of reference embeddings, each by the others, (N,) nats: what new samples of their kind have.

        Args:
            own: (N,) places of those that are wanted among the reference; ``None`` means all of it.
        """
        reference = self.along.reference
        own = torch.arange(len(reference), device=reference.device) if own is None else own
        return self.along.leave_one_out(own) + self._tail(reference[own], own=own)

    def log_across(self, z: Tensor, *, own: Tensor | None = None) -> Tensor:
        """Log distance from the manifold, log a: (N, K) -> (N,).

        Args:
            z: finite float64 embeddings.
            own: (N,) place of each among the reference, where it is one of them: it is no neighbour of itself.
        """
        points = self.along.reference @ self.whitener.T
        found = []
        for rows, index in self._neighbourhoods(z, own):
            around = points[index]
            centre = around.mean(1, keepdim=True)
            found.append(_squared_across(rows @ self.whitener.T - centre[:, 0], around - centre, self.volume_rank))
        return 0.5 * torch.cat(found).log()

    def _tail(self, z: Tensor, *, own: Tensor | None = None) -> Tensor:
        """Logarithm of the Gaussian tail, (N,) nats, at most 0."""
        if math.isinf(self.log_start):
            return z.new_zeros(len(z))
        return -0.5 * ((self.log_across(z, own=own) - self.log_start).clamp_min(0.0) / STEP).square()

    @property
    def _across_dimensions(self) -> int:
        return len(self.whitener) - self.volume_rank

    def _neighbourhoods(self, z: Tensor, own: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Parts of the rows (B, K), each with the indices of the nearest reference embeddings (B, k)."""
        _, index = nearest(z, self.along.reference, self.neighbours, own=own)
        size = max(1, ELEMENTS // (self.neighbours * z.shape[1]))
        return list(zip(z.split(size), index.split(size), strict=True))

    def _mean_covariance(self, z: Tensor, own: Tensor) -> Tensor:
        """Mean (K, K) of the covariances of neighbourhoods, whose tangent directions vary no more than the next one.

        What is a tangent direction here is one across elsewhere, and would hide there what is unusual.
        """
        total = z.new_zeros(z.shape[1], z.shape[1])
        for _, index in self._neighbourhoods(z, own):
            around = self.along.reference[index]
            around = around - around.mean(1, keepdim=True)
            eigenvalues, vectors = torch.linalg.eigh(around @ around.mT)
            next_one = eigenvalues[:, [-self.volume_rank - 1]].clamp_min(0.0)
            shrink = (next_one / eigenvalues.clamp_min(torch.finfo(eigenvalues.dtype).tiny)).clamp_max(1.0).sqrt()
            around = (
                vectors * shrink[:, None]
            ).mT @ around  # rotated among the neighbours, which changes no covariance
            total += around.flatten(0, 1).T @ around.flatten(0, 1)
        return total / (len(z) * (self.neighbours - 1))


def _whitener(covariance: Tensor) -> Tensor:
    """Map (L, K) to the coordinates in which the covariance is I; directions without variance are left out."""
    variances, axes = torch.linalg.eigh(covariance)
    kept = variances > SMALLEST_VARIANCE * variances[-1]
    whitener: Tensor = (axes[:, kept] / variances[kept].sqrt()).T
    return whitener.contiguous()


def _squared_across(offset: Tensor, around: Tensor, tangent: int) -> Tensor:
    """a^2 (B,) of offsets (B, L) from the means of neighbourhoods (B, k, L), both centred.

    Only k x k matrices are decomposed: the covariance has no more than k - 1 directions of its own, and in all others
    is the shared one.
    """
    degrees = around.shape[1] - 1
    eigenvalues, vectors = torch.linalg.eigh(around @ around.mT / degrees)
    own = min(degrees, around.shape[2])
    eigenvalues, vectors = eigenvalues[:, -own:].flip(1), vectors[:, :, -own:].flip(2)
    # coordinates of the offset along the principal directions of its neighbourhood
    along = (vectors.mT @ (around @ offset[..., None]))[..., 0]
    # directions in which the neighbourhood has no extent are rounding alone, as where several neighbours are equal
    extended = eigenvalues > SMALLEST_VARIANCE * eigenvalues[:, :1]
    squared = torch.where(
        extended, along.square() / (degrees * eigenvalues.clamp_min(torch.finfo(eigenvalues.dtype).tiny)), 0.0
    )
    rest = (offset.square().sum(1) - squared.sum(1)).clamp_min(0.0)
    across = squared[:, tangent:] / ((1.0 - SHARED) * eigenvalues[:, tangent:].clamp_min(0.0) + SHARED)
    total: Tensor = across.sum(1) + rest / SHARED
    return total
