"""The reference of an encoder's embeddings: their coordinates, intrinsic dimension and density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..runtime.concise import Concise
from .densities import EmbeddingDensity, GaussianDensity, NeighbourDensity, finite_embeddings
from .intrinsic import IntrinsicDimension, intrinsic_dimension
from .jacobian import differentiable
from .manifold import ManifoldDensity
from .mixtures import MixtureDensity
from .strategies import Encode
from .survey import batch_expected, require_floating_point, require_real
from .volume import log_singular_values

DensityName = Literal["auto", "gaussian", "neighbours", "manifold", "mixture"]
DensityChoice = DensityName | EmbeddingDensity

# name to a fit to the coordinates (M, L) of reference embeddings and their rank r
FITS: Mapping[str, Callable[[Tensor, int], EmbeddingDensity]] = {
    "gaussian": lambda coordinates, rank: GaussianDensity.fit(coordinates),
    "neighbours": lambda coordinates, rank: NeighbourDensity.fit(coordinates, dimension=rank),
    "manifold": lambda coordinates, rank: ManifoldDensity.fit(coordinates, dimension=rank),
    "mixture": lambda coordinates, rank: MixtureDensity.fit(coordinates),
}
AUTO = "manifold"
EMBEDDED_A_PASS = 256  # samples
ROUNDING = 1e-12  # of float32 embeddings, as a share of their mean square


@dataclass(frozen=True, repr=False)
class EmbeddingReference(Concise):
    """Coordinates of embeddings, their density there, and the number of directions in which they vary.

    Attributes:
        density: density of coordinates.
        rank: r, the directions of the volume that goes with the density: one integer for a whole model.
        dimension: intrinsic dimension of the reference embeddings; ``None`` where it was fitted with a given rank.
        gaussian: Gaussian in whose white coordinates all is; ``None`` where coordinates are the embedding's own.
        embeddings: (M, K) finite reference embeddings; ``None`` where there are none.
        choice: how the density was chosen, for another one like it.
    """

    density: EmbeddingDensity
    rank: int
    dimension: IntrinsicDimension | None = None
    gaussian: GaussianDensity | None = None
    embeddings: Tensor | None = None
    choice: DensityChoice | None = None

    @classmethod
    def measure(
        cls,
        encode: Encode,
        x: Tensor,
        *,
        density: DensityChoice = "auto",
        rank: int | Literal["auto"] = "auto",
        whiten: bool | None = None,
        chunk: int | None = None,
    ) -> EmbeddingReference:
        """Fit to the embeddings of reference inputs x (M, ...), by forward passes alone.

        Args:
            encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
            x: (M, ...) inputs, thousands where there are as many.
            density, rank, whiten: see :meth:`fit`.
            chunk: inputs a pass.

        Raises:
            TypeError, ValueError: for inputs or embeddings that no Jacobian can be taken of, and as :meth:`fit` does.
        """
        require_floating_point(x)
        with differentiable(x.device.type), torch.no_grad(), batch_expected(encode, x):
            z = torch.cat([require_real(encode(part.clone())) for part in x.split(chunk or EMBEDDED_A_PASS)])
            if len(z) != len(x):
                raise ValueError(f"the encoder must map {len(x)} inputs to as many embeddings, got {tuple(z.shape)}.")
        return cls.fit(z, density=density, rank=rank, whiten=whiten)

    @classmethod
    def fit(
        cls,
        z: Tensor,
        *,
        density: DensityChoice = "auto",
        rank: int | Literal["auto"] = "auto",
        whiten: bool | None = None,
    ) -> EmbeddingReference:
        """Fit to reference embeddings.

        Args:
            z: (M, K); those that are not finite are left out.
            density: ``gaussian``, N(0, I) of white coordinates; ``neighbours`` on a manifold of r dimensions;
                ``manifold``, with a tail across it; ``mixture`` of Gaussians; ``auto``, the one that ranks best; or a
                density of the coordinates.
            rank: r, at most the number of coordinates; ``auto`` is the intrinsic dimension, rounded.
            whiten: coordinates are white, or the embedding's own; ``None`` whitens for ``gaussian`` alone.

        Raises:
            ValueError: for a shape other than (M, K), an unknown density, a rank below 1, complex embeddings, or where
                all are equal or they are too few.
        """
        z = finite_embeddings(z)
        _require_spread(z)
        dimension = intrinsic_dimension(z) if rank == "auto" else None
        found = dimension.rank if dimension is not None else int(rank)
        return cls._fitted(z, density, found, dimension, whiten)

    @classmethod
    def _fitted(
        cls, z: Tensor, choice: DensityChoice, rank: int, dimension: IntrinsicDimension | None, whiten: bool | None
    ) -> EmbeddingReference:
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}.")
        gaussian = GaussianDensity.fit(z) if (choice == "gaussian" if whiten is None else whiten) else None
        coordinates = z if gaussian is None else gaussian.whiten(z)
        rank = min(rank, coordinates.shape[1])
        density = _fit_of(choice)(coordinates, rank) if isinstance(choice, str) else choice
        return cls(density, rank, dimension, gaussian, z, choice)

    def refit(self, *, density: DensityChoice = "auto", rank: int | None = None) -> EmbeddingReference:
        """Fit another density, or one for another rank, to the same embeddings, as :meth:`fit` does.

        Args:
            density: see :meth:`fit`; ``auto`` is that of this reference, in its coordinates.
            rank: r; ``None`` is that of this reference.

        Raises:
            ValueError: where there are no embeddings, and as :meth:`fit` does.
        """
        if self.embeddings is None:
            raise ValueError("this reference has no embeddings that another density could be fitted to.")
        same = density == "auto"
        choice, whiten = (self.choice or self.density, self.gaussian is not None) if same else (density, None)
        return self._fitted(self.embeddings, choice, self.rank if rank is None else rank, self.dimension, whiten)

    def to(self, device: torch.device) -> EmbeddingReference:
        """Copy to another device."""
        return replace(
            self,
            density=self.density.to(device),
            gaussian=None if self.gaussian is None else self.gaussian.to(device),
            embeddings=None if self.embeddings is None else self.embeddings.to(device),
        )

    def coordinates(self, z: Tensor) -> Tensor:
        """Coordinates of embeddings, (N, K) -> (N, L) float64."""
        return z.double() if self.gaussian is None else self.gaussian.whiten(z)

    def log_singular_values(self, gram: Tensor) -> Tensor:
        """Log singular values of the Jacobian of the coordinates, largest first, of Gram matrices (N, K, K): (N, L)."""
        if self.gaussian is None:
            return log_singular_values(gram)
        return log_singular_values(self.gaussian.whitener @ gram.double() @ self.gaussian.whitener.T)

    def log_density(self, coordinates: Tensor) -> Tensor:
        """Log density of coordinates, (N, L) -> (N,) nats; NaN for rows that are not finite."""
        return self.density.log_density(coordinates)

    def leave_one_out(self) -> Tensor:
        """Log density (M,) of the reference embeddings, by neighbours other than the embedding itself.

        A density of few parameters is that of all: one embedding more or less does not move it.
        """
        if isinstance(self.density, (NeighbourDensity, ManifoldDensity)):
            return self.density.leave_one_out()
        if self.embeddings is None:
            raise ValueError("this reference has no embeddings.")
        return self.log_density(self.coordinates(self.embeddings))


def _fit_of(name: str) -> Callable[[Tensor, int], EmbeddingDensity]:
    known = FITS.get(AUTO if name == "auto" else name)
    if known is None:
        raise ValueError(f"density must be auto, {', '.join(FITS)} or an EmbeddingDensity, got {name!r}.")
    return known


def _require_spread(z: Tensor) -> None:
    """Refuse embeddings (M, K) that are a point up to rounding."""
    variance, mean_square = (z - z.mean(0)).square().sum(), z.square().sum()
    if not float(variance) > ROUNDING * float(mean_square):
        raise ValueError("all embeddings are equal: the encoder has collapsed to a point.")
