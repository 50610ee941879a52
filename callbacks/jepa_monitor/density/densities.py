"""Densities of embeddings, fitted to reference embeddings: one Gaussian, and nearest neighbours on a manifold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING

import torch
from scipy.special import digamma
from torch import Tensor

from ..runtime.concise import Concise
from .checks import finite_rows, require_between, require_embeddings
from .intrinsic import intrinsic_dimension
from .neighbours import kth_distance, neighbourhood

if TYPE_CHECKING:
    from typing_extensions import Self

ROUNDING = 1e-12  # of float32 embeddings, as a share of their mean square
SMALLEST_VARIANCE = 1e-10  # of the largest: below it there is no direction


@dataclass(frozen=True, repr=False)
class EmbeddingDensity(Concise, ABC):
    """A density of embeddings, fitted to reference embeddings; it knows nothing of the encoder.

    A subclass is a frozen dataclass that holds its tensors and implements :attr:`size` and :meth:`evaluate`; one that
    lives on fewer dimensions also says on how many, by :attr:`volume_rank`.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """K, number of coordinates."""

    @property
    def volume_rank(self) -> int:
        """Number of dimensions per whose volume it is a density: as many directions of the Jacobian go with it.

        A density in all K coordinates goes with the volume of K directions, one on a manifold with that of the r along
        it. With others, the change of variables from embedding to input does not hold.
        """
        return self.size

    @abstractmethod
    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats; what :meth:`log_density` calls."""

    def log_density(self, z: Tensor) -> Tensor:
        """Log density, higher where embeddings are more typical.

        Args:
            z: (N, K) embeddings of any real dtype, on the device of the density.

        Returns:
            (N,) nats, float64; NaN for an embedding that is not finite.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: for another shape than (N, K) with the K that it was fitted to, or complex embeddings.
        """
        z = require_embeddings(z, size=self.size)
        finite = torch.isfinite(z).all(1)
        answer = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        answer[finite] = self.evaluate(finite_rows(z).double())
        return answer

    def to(self, device: torch.device | str) -> Self:
        """Copy to another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        held = {name: value for name, value in values.items() if isinstance(value, Tensor | EmbeddingDensity)}
        return replace(self, **{name: value.to(device) for name, value in held.items()})


@dataclass(frozen=True, repr=False)
class GaussianDensity(EmbeddingDensity):
    """One Gaussian: log p(z) = -1/2 |W (z - mean)|^2 - L/2 log 2 pi + log |W|; that of the theorem.

    Attributes:
        mean: (K,).
        whitener: W (L, K), with W C W^T = I for the unbiased covariance C. L < K where the cloud has no extent in some
            directions: the density is then that on the flat that it spans.
    """

    mean: Tensor
    whitener: Tensor

    @classmethod
    def fit(cls, z: Tensor) -> GaussianDensity:
        """Fit to the finite of (N, K) embeddings; directions with less than 1e-10 of the largest variance are left out.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: for a shape other than (N, K), N <= K finite embeddings, when all are equal, or complex ones.
        """
        rows = finite_embeddings(z)
        if len(rows) <= rows.shape[1]:
            raise ValueError(
                f"{len(rows)} finite embeddings cannot give the covariance of {rows.shape[1]} coordinates: use more "
                f"than {rows.shape[1]}."
            )
        variances, axes = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))
        kept = variances > SMALLEST_VARIANCE * variances[-1]
        return cls(rows.mean(0), (axes[:, kept] / variances[kept].sqrt()).T.contiguous())

    @property
    def size(self) -> int:
        """K, number of coordinates."""
        return len(self.mean)

    @property
    def volume_rank(self) -> int:
        """L, number of directions in which the cloud has an extent."""
        return len(self.whitener)

    @property
    def log_determinant(self) -> Tensor:
        """log |W|, a scalar in nats: what the log density of whitened coordinates lacks."""
        lengths: Tensor = torch.linalg.vector_norm(self.whitener, dim=1)
        return lengths.log().sum()  # the rows are orthogonal

    def whiten(self, z: Tensor) -> Tensor:
        """Coordinates in which the Gaussian is N(0, I), (N, K) -> (N, L) float64."""
        return (require_embeddings(z, size=self.size).double() - self.mean) @ self.whitener.T

    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats."""
        constant = self.log_determinant - 0.5 * len(self.whitener) * math.log(2.0 * math.pi)
        return constant - 0.5 * self.whiten(z).square().sum(1)


@dataclass(frozen=True, repr=False)
class NeighbourDensity(EmbeddingDensity):
    """Nearest neighbours on a manifold of r dimensions: log p(z) = psi(k) - log M - log V_r - r log d_k(z).

    d_k is the distance to the k-th nearest of M reference embeddings, V_r the volume of the unit ball in r dimensions,
    psi the digamma function, with which the mean of the estimate is right where the density is constant (Loftsgaarden
    and Quesenberry 1965; Kozachenko and Leonenko 1987). It is a density per volume of the manifold, in the embedding's
    own units, and does not tell how far from the manifold an embedding lies.

    Attributes:
        reference: (M, K) float64.
        dimension: r, not necessarily whole.
        k: number of the neighbour, counted from the nearest.
        smallest: distance below which embeddings are copies; d_k is no smaller.
    """

    reference: Tensor
    dimension: float
    k: int
    smallest: float

    @classmethod
    def fit(cls, z: Tensor, *, dimension: float | None = None, k: int | None = None) -> NeighbourDensity:
        """Keep the finite of (M, K) embeddings.

        Args:
            z: (M, K) embeddings; with 64 coordinates, 1,024 embeddings are scored against 20,000 in about a second.
            dimension: r, above 0 and at most K; ``None`` is the rank of :func:`intrinsic_dimension`.
            k: number of the neighbour, from 1 to M - 1; ``None`` is a fortieth of M, at least 10. A given k makes the
                density consistent as M grows. The default keeps its scale, and on trained encoders ranks best for M
                from 1,000 to 20,000: what is finer is noise there.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: for a shape other than (M, K), a k or dimension out of range, when all embeddings are equal, or
                for complex ones.
        """
        rows = finite_embeddings(z)
        chosen = min(neighbourhood(len(rows)), len(rows) - 1) if k is None else k
        require_between(1, len(rows) - 1, k=chosen)
        r = float(intrinsic_dimension(rows).rank if dimension is None else require_dimension(dimension, rows.shape[1]))
        spread = (rows - rows.mean(0)).norm(dim=1).median()
        return cls(
            rows, r, chosen, max(torch.finfo(torch.float32).eps * float(spread), torch.finfo(torch.float64).tiny)
        )

    @property
    def size(self) -> int:
        """K, number of coordinates."""
        return self.reference.shape[1]

    @property
    def volume_rank(self) -> int:
        """r, rounded, at least 1."""
        return max(1, round(self.dimension))

    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats."""
        return self._from_distance(kth_distance(z, self.reference, self.k), len(self.reference))

    def leave_one_out(self, own: Tensor | None = None) -> Tensor:
        """Log density of reference embeddings, each by the others, (N,) nats: what new samples of their kind have.

        Args:
            own: (N,) places of those that are wanted among the reference; ``None`` means all of it.
        """
        own = torch.arange(len(self.reference), device=self.reference.device) if own is None else own
        distance = kth_distance(self.reference[own], self.reference, self.k, own=own)
        return self._from_distance(distance, len(self.reference) - 1)

    def _from_distance(self, distance: Tensor, others: int) -> Tensor:
        log_unit_ball = 0.5 * self.dimension * math.log(math.pi) - math.lgamma(0.5 * self.dimension + 1.0)
        constant = float(digamma(self.k)) - math.log(others) - log_unit_ball
        return constant - self.dimension * distance.clamp_min(self.smallest).log()


def finite_embeddings(z: Tensor) -> Tensor:
    """The finite of (N, K) embeddings in float64, to which a density is fitted.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for a shape other than (N, K), fewer than two finite ones, when all are equal up to rounding, or for
            complex ones.
    """
    rows = finite_rows(require_embeddings(z)).double()
    if len(rows) < 2:
        raise ValueError(f"a density needs at least 2 finite embeddings, got {len(rows)} of {len(z)}.")
    variance, mean_square = (rows - rows.mean(0)).square().sum(), rows.square().sum()
    # the same image is not always the same number: products of matrices round by the place of a row
    if not float(variance) > ROUNDING * float(mean_square):
        raise ValueError("all embeddings are equal: the encoder has collapsed to a point.")
    return rows


def require_dimension(dimension: float, size: int) -> float:
    """Return the dimension of a manifold in K = ``size`` coordinates as it is.

    Raises:
        ValueError: for anything but a number above 0 and at most K.
    """
    is_number = isinstance(dimension, Real) and not isinstance(dimension, bool)
    if not is_number or not 0.0 < dimension <= size:
        raise ValueError(f"dimension must be a number above 0 and at most K = {size}, got {dimension!r}.")
    return dimension
