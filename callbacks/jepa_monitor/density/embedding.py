"""The reference of an encoder's embeddings: their coordinates, intrinsic dimension and density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import require_whole
from ..runtime.concise import Concise
from .checks import require_between, require_embeddings, require_encoder, require_real
from .densities import EmbeddingDensity, GaussianDensity, NeighbourDensity, finite_embeddings
from .intrinsic import IntrinsicDimension, intrinsic_dimension
from .jacobian import differentiable
from .manifold import ManifoldDensity
from .mixtures import MixtureDensity
from .strategies import Encode
from .survey import survey
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


@dataclass(frozen=True, repr=False)
class EmbeddingReference(Concise):
    """Coordinates of embeddings, their density there, and the number of directions in which they vary.

    Attributes:
        density: density of coordinates.
        rank: r, the directions of the volume that goes with the density: one integer for a whole model.
        dimension: intrinsic dimension of the reference embeddings; ``None`` where the rank was given.
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
            TypeError, ValueError: for inputs or embeddings that no Jacobian can be taken of (:func:`jacobian_gram`
                names the reasons), and as :meth:`fit` does.
        """
        require_encoder(encode, x)
        require_whole(1, None, chunk=chunk)
        with differentiable(x.device.type), torch.no_grad():
            x = x.detach().clone()  # a tensor made under inference mode cannot take part in autograd
            if len(x):
                survey(encode, x)
            z = torch.cat([require_real(encode(part.clone())) for part in x.split(chunk or EMBEDDED_A_PASS)])
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
            rank: r, from 1 to the number of coordinates; ``auto`` is the density's own (its ``volume_rank``): the
                intrinsic dimension, rounded, on a manifold, and all directions for ``gaussian`` and ``mixture``.
            whiten: coordinates are white, or the embedding's own; ``None`` whitens for ``gaussian`` alone.

        Raises:
            TypeError: for embeddings that are no tensor, or a density that is neither a name nor an EmbeddingDensity.
            ValueError: for a shape other than (M, K), an unknown density, one of another size, a rank out of range,
                complex embeddings, or where all are equal or they are too few.
        """
        require_choice(density)
        require_whole(1, "auto", rank=rank)
        if not isinstance(whiten, bool | None):
            raise ValueError(f"whiten must be True, False or None, got {whiten!r}.")
        z = finite_embeddings(z)
        return cls._fitted(z, density, intrinsic_dimension(z) if rank == "auto" else int(rank), whiten)

    @classmethod
    def _fitted(
        cls, z: Tensor, choice: DensityChoice, directions: int | IntrinsicDimension, whiten: bool | None
    ) -> EmbeddingReference:
        """Fit to finite embeddings; a dimension that was found is followed by densities on a manifold alone."""
        gaussian = GaussianDensity.fit(z) if (choice == "gaussian" if whiten is None else whiten) else None
        coordinates = z if gaussian is None else gaussian.whiten(z)
        size = coordinates.shape[1]
        if isinstance(directions, int):
            require_between(1, size, rank=directions)
        found = directions if isinstance(directions, int) else min(directions.rank, size)
        density = FITS[AUTO if choice == "auto" else choice](coordinates, found) if isinstance(choice, str) else choice
        if density.size != size:
            raise ValueError(f"the density is one of {density.size} coordinates, and the embeddings have {size}.")
        if isinstance(directions, int):
            return cls(density, directions, None, gaussian, z, choice)
        return cls(density, density.volume_rank, directions, gaussian, z, choice)

    def refit(self, *, density: DensityChoice = "auto", rank: int | Literal["auto"] = "auto") -> EmbeddingReference:
        """Fit another density, or one for another rank, to the same embeddings, as :meth:`fit` does.

        Args:
            density: see :meth:`fit`; ``auto`` is that of this reference, in its coordinates.
            rank: r; ``auto`` is the one that was given for this reference, else the density's own.

        Raises:
            TypeError, ValueError: where there are no embeddings, and as :meth:`fit` does.
        """
        require_choice(density)
        require_whole(1, "auto", rank=rank)
        if self.embeddings is None:
            raise ValueError("this reference has no embeddings that another density could be fitted to.")
        same = isinstance(density, str) and density == "auto"
        choice, whiten = (self.choice or self.density, self.gaussian is not None) if same else (density, None)
        known = self.rank if self.dimension is None else self.dimension
        return self._fitted(self.embeddings, choice, known if rank == "auto" else int(rank), whiten)

    @property
    def size(self) -> int:
        """K, number of coordinates of an embedding."""
        return (self.gaussian or self.density).size

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
        z = require_embeddings(z, size=self.size)
        return z.double() if self.gaussian is None else self.gaussian.whiten(z)

    def log_singular_values(self, gram: Tensor) -> Tensor:
        """Log singular values of the Jacobian of the coordinates, largest first, of Gram matrices (N, K, K): (N, L)."""
        if self.gaussian is None:
            return log_singular_values(gram)
        return log_singular_values(self.gaussian.whitener @ gram.double() @ self.gaussian.whitener.T)

    def log_density(self, coordinates: Tensor) -> Tensor:
        """Log density of coordinates, (N, L) -> (N,) nats; NaN for rows that are not finite."""
        return self.density.log_density(coordinates)

    def leave_one_out(self, own: Tensor | None = None) -> Tensor:
        """Log density (N,) of reference embeddings, by neighbours other than the embedding itself.

        A density of few parameters is that of all: one embedding more or less does not move it.

        Args:
            own: (N,) places of those that are wanted among the reference; ``None`` means all of it.
        """
        if isinstance(self.density, (NeighbourDensity, ManifoldDensity)):
            return self.density.leave_one_out(own)
        if self.embeddings is None:
            raise ValueError("this reference has no embeddings.")
        return self.log_density(self.coordinates(self.embeddings if own is None else self.embeddings[own]))


def require_choice(density: object) -> None:
    """Refuse what chooses no density.

    Raises:
        TypeError: for what is neither a name nor a density, such as the class of one.
        ValueError: for an unknown name.
    """
    if isinstance(density, str) and density not in ("auto", *FITS):
        raise ValueError(f"density must be auto, {', '.join(FITS)} or an EmbeddingDensity, got {density!r}.")
    if not isinstance(density, (str, EmbeddingDensity)):
        raise TypeError(
            f"density must be auto, {', '.join(FITS)}, or an object such as GaussianDensity.fit(z), got {density!r}."
        )
