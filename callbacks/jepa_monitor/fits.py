"""The densities of one measurement, fitted to reference embeddings, or to the probe where those cannot be used.

And, where volumes are estimated, the subspace that goes with the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .density import (
    DensityChoice,
    EmbeddingReference,
    GaussianDensity,
    IntrinsicDimension,
    Subspace,
    intrinsic_dimension,
    leading_volume,
)
from .ranking import knn_distance
from .runtime.concise import Concise

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Fits(Concise):
    """Densities of embeddings, and the probe's log density by the first of them.

    Attributes:
        of_probe: (N,) log density of the probe's embeddings, in nats; NaN without a density.
        reference: the density that was chosen; ``None`` where none can be fitted.
        gaussian: one Gaussian, N(0, I) of white embeddings; ``None`` where they cannot be whitened.
        dimension: intrinsic dimension; ``None`` where there is none.
        size: number of reference embeddings behind the density; 0 where it is fitted to the probe.
        problem: why there is no density, or ``None``.
        problem_of_gaussian: why there is no N(0, I) although there is a density, or ``None``.
    """

    of_probe: Tensor
    reference: EmbeddingReference | None = None
    gaussian: GaussianDensity | None = None
    dimension: IntrinsicDimension | None = None
    size: int = 0
    problem: str | None = None
    problem_of_gaussian: str | None = None

    @classmethod
    def of(
        cls, z: Tensor, z_reference: Tensor | None, *, density: DensityChoice, rank: int | None, most_directions: int
    ) -> Fits:
        """Fit to reference embeddings, or to the probe's, each of which is then scored by all the others.

        Args:
            z: (N, K) embeddings of the probe.
            z_reference: (M, K) those of the reference, none of whose samples is in the probe; ``None`` without one.
            density: see :meth:`EmbeddingReference.fit`.
            rank: r, or K if that is smaller; ``None`` is the density's own.
            most_directions: number of input dimensions, which no rank exceeds.
        """
        clouds = [z] if z_reference is None else [z_reference, z]
        given: int | Literal["auto"] = "auto" if rank is None else min(rank, z.shape[1])
        fit = partial(EmbeddingReference.fit, density=density, rank=given)
        reference, place, problem = _first_fit(fit, clouds)
        if reference is None:
            return cls(torch.full((len(z),), torch.nan, dtype=torch.float64), problem=problem)
        if reference.rank > most_directions:
            reference = reference.refit(rank=most_directions)
        is_of_probe = clouds[place] is z
        of_probe = _within(z, reference) if is_of_probe else reference.log_density(reference.coordinates(z))
        dimension, *_ = (reference.dimension, 0) if reference.dimension else _first_fit(intrinsic_dimension, clouds)
        gaussian, _, problem_of_gaussian = _first_fit(GaussianDensity.fit, clouds)
        size = 0 if is_of_probe else len(clouds[place])
        return cls(of_probe, reference, gaussian, dimension, size, None, problem_of_gaussian)

    @property
    def rank(self) -> int:
        """The rank r of all volumes; 0 where there is no density."""
        return 0 if self.reference is None else self.reference.rank

    def score_embeddings(self, z: Tensor, z_reference: Tensor | None) -> dict[str, Tensor]:
        """Score embeddings (N, K) that no density was fitted to, without a Jacobian: see :class:`Scores`."""
        unknown = torch.full((len(z),), torch.nan, dtype=torch.float64)
        density = unknown if self.reference is None else self.reference.log_density(self.reference.coordinates(z))
        found = {"embedding": density}
        return found if z_reference is None else found | {"knn": -knn_distance(z, z_reference)}

    def gaussian_log_density(self, spectra: Tensor, z: Tensor) -> Tensor:
        """Log density of the first C samples by the Gaussian, with the volume of all its directions; NaN without one.

        Args:
            spectra: (C, min(K, D)) log singular values of their Jacobians, largest first.
            z: (N, K) embeddings of the probe.

        Returns:
            (C,) nats.
        """
        if self.gaussian is None:
            return torch.full((len(spectra),), torch.nan, dtype=torch.float64)
        volume = leading_volume(spectra, min(self.gaussian.volume_rank, spectra.shape[1]))
        return volume + self.gaussian.log_density(z[: len(spectra)])


@dataclass(frozen=True)
class VolumeFit:
    """A subspace in the coordinates of a density."""

    density: EmbeddingReference
    subspace: Subspace

    @classmethod
    def calibrate(cls, density: EmbeddingReference, gram: Tensor, z: Tensor) -> VolumeFit:
        """Calibrate on exact Gram matrices (n, K, K) and embeddings (n, K) of the same samples."""
        assert density.embeddings is not None, "the densities of a measurement are fitted to embeddings"
        white = density.gaussian
        own = gram if white is None else white.whitener @ gram @ white.whitener.T
        reference = density.coordinates(density.embeddings)
        return cls(density, Subspace.calibrate(own, density.coordinates(z), density.rank, reference=reference))

    def rows(self, z: Tensor) -> Tensor:
        """Rows (n, m, K) in which to differentiate embeddings (n, K)."""
        rows, white = self.subspace.rows(self.density.coordinates(z)), self.density.gaussian
        return rows if white is None else rows @ white.whitener

    def estimate(self, gram: Tensor) -> Tensor:
        """Estimate volumes (n,) from Gram matrices S G S^T (n, m, m), S being the rows."""
        return self.subspace.estimate(gram.cpu()).to(gram.device)


def _first_fit(fit: Callable[[Tensor], T], clouds: list[Tensor]) -> tuple[T | None, int, str | None]:
    """Fit to the first cloud that allows it: the fit, the cloud's place, and the last one's problem where none does."""
    problem = None
    for place, cloud in enumerate(clouds):
        fitted, problem = _attempt(fit, cloud)
        if fitted is not None:
            return fitted, place, None
    return None, len(clouds), problem


def _attempt(fit: Callable[[Tensor], T], cloud: Tensor) -> tuple[T | None, str | None]:
    try:
        return fit(cloud), None
    except ValueError as error:
        return None, str(error)


def _within(z: Tensor, reference: EmbeddingReference) -> Tensor:
    """Log density (N,) of the embeddings that the density was fitted to, each without itself; NaN if not finite."""
    finite = torch.isfinite(z).all(1)
    found = torch.full((len(z),), torch.nan, dtype=torch.float64)
    found[finite] = reference.leave_one_out()
    return found
