"""Mean and covariance of a probe's embeddings, and the coordinates in which they are white."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_VARIANCE = 1e-10


@dataclass(frozen=True)
class EmbeddingReference:
    """Whitening of an embedding cloud.

    Attributes:
        mean: (K,).
        whitener: (L, K) with whitener @ covariance @ whitener.T = I; L < K where some directions have no variance.
    """

    mean: Tensor
    whitener: Tensor

    @classmethod
    def fit(cls, z: Tensor) -> EmbeddingReference:
        """Fit to (N, K) embeddings; directions with less than 1e-10 of the largest variance are left out.

        Raises:
            ValueError: with N <= K samples, or when all embeddings are equal or none is finite.
        """
        z = z[torch.isfinite(z).all(1)].double()
        if len(z) <= z.shape[1]:
            raise ValueError(
                f"{len(z)} finite embeddings cannot give the covariance of {z.shape[1]} coordinates: "
                f"use more than {z.shape[1]} probe samples."
            )
        variances, axes = torch.linalg.eigh(torch.cov(z.T).reshape(z.shape[1], z.shape[1]))
        if not float(variances[-1]) > torch.finfo(torch.float64).tiny:
            raise ValueError("all embeddings are equal: the encoder has collapsed to a point.")
        kept = variances > SMALLEST_VARIANCE * variances[-1]
        return cls(mean=z.mean(0), whitener=(axes[:, kept] / variances[kept].sqrt()).T.contiguous())

    def whiten(self, z: Tensor) -> Tensor:
        """(N, K) -> (N, L) with mean 0 and covariance I on the reference."""
        return (z.double() - self.mean) @ self.whitener.T

    def whiten_gram(self, gram: Tensor) -> Tensor:
        """Gram matrix of the Jacobian of the whitened embedding: (N, K, K) -> (N, L, L)."""
        return self.whitener @ gram.double() @ self.whitener.T
