"""LiDAR (arXiv 2312.04474): the rank of what an encoder tells images apart by, in units of what views change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..gaussianity.cloud import as_float64


def lidar(z_NQK: Tensor, *, delta: float = 1e-4) -> float:
    """Effective rank of the linear-discriminant spectrum of N samples in Q views each.

    With the mean of each sample's views, Sigma_b their covariance and Sigma_w that of the views around them:

        lambda = eigenvalues of Sigma_w^-1/2 Sigma_b Sigma_w^-1/2,  p = lambda / sum lambda,  exp(-sum p log p)

    Sigma_w gets delta times the mean variance (of both matrices) on its diagonal. The paper adds delta itself, which is
    the same where features have unit variance; this way the value does not depend on the scale of the features.

    Args:
        z_NQK: features of sample n in view q.
        delta: of the ridge.

    Returns:
        From 1 to :func:`lidar_bound`; NaN with fewer than two samples or views, or where no mean differs from another.
    """
    z = as_float64(z_NQK)
    n, q, k = z.shape
    if min(n, q) < 2:
        return math.nan
    means = z.mean(1)
    centred, within = means - means.mean(0), (z - means[:, None]).flatten(0, 1)
    sigma_b = centred.T @ centred / (n - 1)
    sigma_w = within.T @ within / (n * (q - 1))
    total = float(sigma_b.trace() + sigma_w.trace())
    if not float(sigma_b.trace()) > 0.0 or not math.isfinite(total):
        return math.nan
    sigma_w.diagonal().add_(delta * total / k)
    # L^-1 Sigma_b L^-T, with Sigma_w = L L^T, has the same eigenvalues
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma_w), centred.T, upper=False)
    spectrum = torch.linalg.svdvals(half).square()
    return float(torch.exp(torch.special.entr(spectrum / spectrum.sum()).sum()))


def lidar_bound(n: int, k: int) -> int:
    """The largest value that N samples of K features can have: min(K, N - 1)."""
    return min(k, n - 1)
