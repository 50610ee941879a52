"""Rankings that need no Jacobian, fitted on one split and scored on another: what a score has to beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..density import auto_rank

MAX_COMPONENTS = 64


@dataclass(frozen=True)
class GaussianBaseline:
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
            ValueError: with fewer than 2 finite inputs, or if they are all equal.
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
        kept = auto_rank(deviations.log())
        axes = vectors.T if len(vectors) == flat.shape[1] else (centred.T @ vectors / variances.sqrt()).T
        return cls(mean, axes[:kept].contiguous(), deviations[:kept])

    def score(self, inputs: Tensor) -> Tensor:
        """Log density up to a constant, (N,) nats."""
        coordinates = (inputs.flatten(1).double() - self.mean) @ self.axes.T / self.deviations
        return -0.5 * coordinates.square().sum(1)


def knn_distance(z: Tensor, reference: Tensor, *, k: int = 10) -> Tensor:
    """Distance to the k-th nearest reference embedding: (N, K) and (M, K) -> (N,); low where the density is high."""
    distances = torch.cdist(z.double(), reference.double())
    return distances.kthvalue(min(k, len(reference)), dim=1).values


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
