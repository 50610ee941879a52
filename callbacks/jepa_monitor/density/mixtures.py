"""A mixture of Gaussians with full covariances, fitted by scikit-learn and evaluated by torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import require_whole
from .densities import EmbeddingDensity, finite_embeddings

COMPONENTS = (1, 2, 4, 8, 16)
EMBEDDINGS_PER_COORDINATE = 2  # of a component, at least
SMALLEST_VARIANCE = 1e-6  # added to every variance, as a share of the mean one


@dataclass(frozen=True, repr=False)
class MixtureDensity(EmbeddingDensity):
    """A mixture of Gaussians: log p(z) = log sum_c w_c N(z; m_c, C_c), each with a covariance of its own.

    Unlike neighbours it punishes distance from the cloud by the square, along every direction by the cloud's own
    extent.

    Attributes:
        log_weights: log w (C,), in nats.
        means: m (C, K).
        factors: F (C, K, K) upper triangular, with F F^T the inverse of the covariance.
    """

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def fit(cls, z: Tensor, *, components: int | None = None, seed: int = 0) -> MixtureDensity:
        """Fit by expectation-maximisation to the finite of (N, K) embeddings, on the CPU.

        Each variance is enlarged by 1e-6 of the mean variance, so that a cloud may be flat. A step takes some N C K^2
        operations and there are up to 100: seconds for 20,000 embeddings in 64 coordinates, minutes in 768.

        Args:
            z: (N, K) embeddings, at least 2 K a component.
            components: C; ``None`` tries 1, 2, 4, 8, 16, as far as there are 2 K embeddings for each, until Schwarz's
                criterion (BIC, 1978) rises, and takes the best.
            seed: seed of the first guess, by k-means; the global generators are left as they were.

        Raises:
            ImportError: where scikit-learn is not installed.
            TypeError: for what is not a tensor.
            ValueError: for a shape other than (N, K), fewer than 2 K embeddings a component, when all are equal, or
                for complex ones.
        """
        require_whole(1, None, components=components)
        require_whole(0, seed=seed)
        rows = finite_embeddings(z)
        least = EMBEDDINGS_PER_COORDINATE * rows.shape[1] * (components or 1)
        if len(rows) < least:
            raise ValueError(
                f"{len(rows)} finite embeddings are too few for {components or 1} full covariances of {rows.shape[1]} "
                f"coordinates: use at least {least}, or fewer components."
            )
        mean, scale = rows.mean(0), rows.var(0).mean().sqrt()
        standardised = ((rows - mean) / scale).cpu().numpy()
        _, best = min(_fitted(standardised, components, seed), key=lambda found: found[0])
        log_weights, means, factors = (
            torch.from_numpy(array).to(rows)
            for array in (np.log(best.weights_), best.means_, best.precisions_cholesky_)
        )
        return cls(log_weights, means * scale + mean, factors / scale)

    @property
    def size(self) -> int:
        """K, number of coordinates."""
        return self.means.shape[1]

    @property
    def volume_rank(self) -> int:
        """Number of directions in which the cloud varies by more than was added to each variance."""
        variances = torch.linalg.eigvalsh(self.covariance)
        return int((variances > 2.0 * SMALLEST_VARIANCE * variances.mean()).sum())

    @property
    def covariance(self) -> Tensor:
        """Covariance (K, K) of the mixture, over all of its components."""
        roots = torch.linalg.solve_triangular(self.factors, torch.eye(self.size).to(self.factors), upper=True)
        weights = self.log_weights.exp()
        centred = self.means - weights @ self.means
        within: Tensor = (weights[:, None, None] * (roots.mT @ roots)).sum(0)
        return within + centred.T @ (weights[:, None] * centred)

    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats."""
        squared = torch.stack(
            [((z - m) @ factor).square().sum(1) for m, factor in zip(self.means, self.factors, strict=True)]
        )
        log_determinants = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constants = self.log_weights + log_determinants - 0.5 * self.size * math.log(2.0 * math.pi)
        return torch.logsumexp(constants[:, None] - 0.5 * squared, dim=0)


def _fitted(rows: NDArray[np.float64], components: int | None, seed: int) -> Iterator[tuple[float, Any]]:
    """BIC and scikit-learn's mixture of (N, K) rows: the one that is asked for, or larger ones until BIC rises."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise ImportError("MixtureDensity needs scikit-learn: pip install scikit-learn.") from None
    most = len(rows) // (EMBEDDINGS_PER_COORDINATE * rows.shape[1])
    counts = [components] if components is not None else [count for count in COMPONENTS if count <= most]
    lowest = math.inf
    for count in counts:
        mixture = GaussianMixture(count, reg_covar=SMALLEST_VARIANCE, random_state=seed)
        with warnings.catch_warnings():
            # a mixture that still creeps upwards after 100 steps is a density all the same
            warnings.simplefilter("ignore", ConvergenceWarning)
            bic = float(mixture.fit(rows).bic(rows))
        yield bic, mixture
        if bic > lowest:
            return
        lowest = bic
