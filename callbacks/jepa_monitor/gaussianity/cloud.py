"""An embedding cloud, prepared once for several statistics: finite rows, centring, spectrum, whitened axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from ..density import require_embeddings, require_real
from ..runtime.concise import Concise

MAX_AXES = 64
# float32 embeddings have nothing but rounding in directions that are smaller than this, relative to the largest
SMALLEST_AXIS = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Cloud(Concise):
    """A cloud prepared once for several statistics; each of them takes a tensor or this.

    Attributes:
        z: (N, K) float64, without the rows that are not finite in float32.
    """

    z: Tensor

    @classmethod
    def of(cls, z: Tensor | Cloud) -> Cloud:
        """Prepare (N, K) embeddings of any dtype; rows with a non-finite value are left out, with a warning.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: if z is not (N, K) with K >= 1, or is complex.
        """
        if isinstance(z, Cloud):
            return z
        z = as_float64(require_embeddings(z))
        # float32's range: squares of squares of it are finite in float64
        finite = (z.abs() <= torch.finfo(torch.float32).max).all(1)
        if not finite.all():
            rank_zero_warn(f"{int((~finite).sum())} of {len(z)} embeddings are not finite and were left out.")
            z = z[finite]
        return cls(z)

    @property
    def n(self) -> int:
        """N, samples."""
        return len(self.z)

    @property
    def k(self) -> int:
        """K, dimensions."""
        return self.z.shape[1]

    @cached_property
    def squared_norms(self) -> Tensor:
        """(N,) squared lengths."""
        return self.z.square().sum(1)

    @cached_property
    def centred(self) -> Tensor:
        """(N, K) without the mean; exactly 0 for a constant cloud, because the first row is taken off first."""
        shifted = self.z - self.z[:1]
        return shifted - shifted.mean(0)

    @cached_property
    def gram(self) -> Tensor:
        """Centred Gram matrix on the smaller side, (K, K) or (N, N): both have the same spectrum."""
        c = self.centred
        return c.T @ c if self.n >= self.k else c @ c.T

    @cached_property
    def singular_values(self) -> Tensor:
        """(min(N, K),) singular values of the centred cloud, largest first; below 1e-7 of that they are rounding."""
        return self._eigen[0].clamp_min(0.0).sqrt().flip(0)

    @cached_property
    def white(self) -> Tensor:
        """(N, A) principal coordinates scaled to mean 0 and mean square 1, largest axis first.

        A is at most 64, at most N - 2 (with N - 1 the samples are a simplex, whatever they came from), and counts no
        axis below 1e-6 of the largest; it is 0 for a constant cloud.
        """
        largest = self.singular_values[:1]
        extended = int((self.singular_values > SMALLEST_AXIS * largest).sum())
        axes = count_axes(self.n, extended)
        vectors = self._eigen[1][:, self._eigen[1].shape[1] - axes :].flip(1)
        scores = self.centred @ vectors if self.n >= self.k else vectors
        return scores / scores.square().mean(0).sqrt()

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.gram)
        return values, vectors


def count_axes(n: int, k: int) -> int:
    """Whitened axes of a cloud of n samples that extends in k dimensions."""
    return max(0, min(n - 2, k, MAX_AXES))


def as_float64(z: Tensor) -> Tensor:
    """Detached float64, on the same device where that has float64; ValueError for complex numbers."""
    z = require_real(z).detach()
    return (z.cpu() if z.device.type == "mps" else z).double()


def gaussian_white(n: int, axes: int, *, generator: torch.Generator) -> Tensor:
    """(n, axes) a whitened N(0, I) cloud in float32: its law is that of :attr:`Cloud.white`, and needs no K.

    The left singular vectors of a centred Gaussian cloud are uniform among the orthonormal vectors without mean, so
    that any basis of them will do.
    """
    z = torch.randn(n, axes, generator=generator, dtype=torch.float32, device=generator.device)
    z = z - z.mean(0)
    lower = torch.linalg.cholesky((z.double().T @ z.double()) / n).float()
    white: Tensor = torch.linalg.solve_triangular(lower, z.T, upper=False).T
    return white.contiguous()


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (R,), from the smallest, and axes (D, R) of B centred samples, (B, D); R is the smaller of B and D."""
    count, width = centred.shape
    if width <= count:
        variances, axes = torch.linalg.eigh(torch.cov(centred.T).reshape(width, width))
        return variances.clamp_min(0.0), axes
    # a covariance (D, D) would be mostly directions without variance, at the price of D cubed
    _, deviations, rows = torch.linalg.svd(centred, full_matrices=False)
    return deviations.flip(0).square() / (count - 1), rows.flip(0).T
