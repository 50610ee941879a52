"""The density of embeddings: a Gaussian, fitted to a probe, and the coordinates in which it is N(0, I)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..runtime.concise import Concise
from .jacobian import differentiable, gram_and_embedding
from .strategies import Encode, Strategy
from .survey import batch_expected, require_floating_point, require_real
from .volume import auto_rank, log_singular_values

SMALLEST_VARIANCE = 1e-10
EMBEDDED_A_PASS = 256  # samples


@dataclass(frozen=True, repr=False)
class EmbeddingReference(Concise):
    """The Gaussian of a probe's embeddings, and the number of directions that carry density.

    Attributes:
        mean: (K,).
        covariance: (K, K), unbiased.
        whitener: (L, K) with whitener @ covariance @ whitener.T = I; L < K where some directions have no variance.
        mean_log_spectrum: (L,) mean over the probe of the log singular values of the whitened embedding's Jacobian, in
            nats, largest first; ``None`` where no Jacobian was given.
    """

    mean: Tensor
    covariance: Tensor
    whitener: Tensor
    mean_log_spectrum: Tensor | None = None

    @classmethod
    def measure(
        cls, encode: Encode, x: Tensor, *, strategy: Strategy = "auto", chunk: int | None = None
    ) -> EmbeddingReference:
        """Fit to embeddings and Jacobians of a probe x (N, ...); :func:`jacobian_gram` has the arguments and errors.

        What :meth:`fit` refuses is refused before the first Jacobian.
        """
        require_floating_point(x)
        with differentiable(x.device.type), torch.no_grad(), batch_expected(encode, x):
            z = torch.cat([require_real(encode(part.clone())) for part in x.split(chunk or EMBEDDED_A_PASS)])
        if z.ndim == 2:  # anything else is refused below
            cls.fit(z)
        gram, z = gram_and_embedding(encode, x, strategy=strategy, chunk=chunk)
        return cls.fit(z, gram=gram)

    @classmethod
    def fit(cls, z: Tensor, *, gram: Tensor | None = None) -> EmbeddingReference:
        """Fit to embeddings (N, K) and, for the spectrum, their Gram matrices (N, K, K).

        Directions with less than 1e-10 of the largest variance are left out, samples that are not finite too.

        Raises:
            ValueError: for a shape other than (N, K), with N <= K samples, when all embeddings are equal or none is
                finite, or for complex ones.
        """
        if z.ndim != 2:
            raise ValueError(f"embeddings must be (N, K), got shape {tuple(z.shape)}: for one embedding, pass z[None].")
        z = require_real(z)[torch.isfinite(z).all(1)].double()
        if len(z) <= z.shape[1]:
            raise ValueError(
                f"{len(z)} finite embeddings cannot give the covariance of {z.shape[1]} coordinates: "
                f"use more than {z.shape[1]} probe samples."
            )
        covariance = torch.cov(z.T).reshape(z.shape[1], z.shape[1])
        variances, axes = torch.linalg.eigh(covariance)
        if not float(variances[-1]) > torch.finfo(torch.float64).tiny:
            raise ValueError("all embeddings are equal: the encoder has collapsed to a point.")
        kept = variances > SMALLEST_VARIANCE * variances[-1]
        whitener = (axes[:, kept] / variances[kept].sqrt()).T.contiguous()
        white = cls(z.mean(0), covariance, whitener)
        if gram is None:
            return white
        return replace(white, mean_log_spectrum=white.log_singular_values(gram).nanmean(0))

    @property
    def rank(self) -> int:
        """Rank r by :func:`auto_rank`.

        Raises:
            ValueError: where no Jacobian was given.
        """
        if self.mean_log_spectrum is None:
            raise ValueError("this reference has no spectrum: use EmbeddingReference.measure, or give a rank.")
        return auto_rank(self.mean_log_spectrum)

    def to(self, device: torch.device) -> EmbeddingReference:
        """Copy to another device."""
        spectrum = None if self.mean_log_spectrum is None else self.mean_log_spectrum.to(device)
        return replace(
            self,
            mean=self.mean.to(device),
            covariance=self.covariance.to(device),
            whitener=self.whitener.to(device),
            mean_log_spectrum=spectrum,
        )

    def whiten(self, z: Tensor) -> Tensor:
        """Whiten embeddings, (N, K) -> (N, L): mean 0 and covariance I on the reference."""
        return (z.double() - self.mean) @ self.whitener.T

    def whiten_gram(self, gram: Tensor) -> Tensor:
        """Gram matrices of the whitened embedding's Jacobian, (N, K, K) -> (N, L, L)."""
        return self.whitener @ gram.double() @ self.whitener.T

    def log_singular_values(self, gram: Tensor) -> Tensor:
        """Log singular values of the whitened embedding's Jacobian, largest first: (N, K, K) -> (N, L)."""
        return log_singular_values(self.whiten_gram(gram))

    def log_density(self, z_white: Tensor) -> Tensor:
        """Log density of whitened embeddings, (N, L) -> (N,) nats up to a constant: that of N(0, I)."""
        return standard_gaussian(z_white)


def standard_gaussian(z: Tensor) -> Tensor:
    """Log density of N(0, I), (N, L) -> (N,) nats up to a constant."""
    return -0.5 * z.square().sum(1)
