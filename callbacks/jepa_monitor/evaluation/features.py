"""Label-free statistics of frozen features, and reasons why features say nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..gaussianity.cloud import as_float64
from ..gaussianity.dimension import effective_rank, effective_rank_null
from ..probe.pixels import COMPONENTS, FEWEST_SAMPLES, principal_components

# what float32 rounding spreads features by, relative to their size
ROUNDING = 1e-6
RIDGE = 1e-3  # of standardised features


def feature_statistics(z: Tensor) -> dict[str, float]:
    """Statistics of (N, K) finite features, N at least 2.

    Returns:
        ``std_mean`` and ``std_min``: standard deviation over the samples, mean and smallest of the K;
        ``std_l2_normalised_ratio``: mean standard deviation of z / ||z|| times sqrt(K) (SimSiam, arXiv 2011.10566), 1
        for an isotropic cloud around 0 and 0 after a collapse to a point; ``rank_ratio``: effective rank (RankMe) over
        its value under N(0, I), 1 for an isotropic Gaussian and NaN where features do not spread.
    """
    z = as_float64(z)
    n, k = z.shape
    spread = z.std(0)
    return {
        "std_mean": float(spread.mean()),
        "std_min": float(spread.min()),
        "std_l2_normalised_ratio": float(F.normalize(z, dim=1).std(0).mean()) * math.sqrt(k),
        "rank_ratio": math.nan if is_constant(z) else effective_rank(z) / effective_rank_null(n, k),
    }


def recovery(z: Tensor, inputs: Tensor, *, components: int = COMPONENTS, ridge: float = RIDGE) -> float:
    """Share of the inputs' first principal components that a linear map finds in the features.

    Args:
        z: (N, K) features.
        inputs: (N, D) what they are features of.
        components: most components, see :func:`principal_components`.
        ridge: penalty on the weights of standardised features.

    Returns:
        See :func:`explained`.
    """
    return explained(z, principal_components(inputs, most=components), ridge=ridge)


def explained(z: Tensor, targets: Tensor, *, ridge: float = RIDGE) -> float:
    """Mean share of the targets' variance that a linear map finds in the features.

    A ridge regression is fitted to every other sample and judged by the samples between them, and the other way round:
    features that know a sample by heart gain nothing by it. Samples that are not finite are left out.

    Args:
        z: (N, K) features.
        targets: (N, C), as :func:`principal_components` makes them.
        ridge: penalty on the weights of standardised features.

    Returns:
        Mean over targets of 1 - mean squared error over mean square, at least 0 each: from 0 (features know nothing, or
        do not vary) to 1. NaN with fewer than 16 samples, or without targets.
    """
    z, targets = _finite(z, targets)
    if len(z) < FEWEST_SAMPLES or not targets.shape[1]:
        return math.nan
    errors = torch.empty_like(targets)
    for held_out in (slice(0, None, 2), slice(1, None, 2)):
        fitted = slice(1 - (held_out.start or 0), None, 2)
        errors[held_out] = targets[held_out] - _ridge_regression(z[fitted], targets[fitted], z[held_out], ridge)
    unexplained = errors.square().sum(0) / targets.square().sum(0)
    return float((1.0 - unexplained).clamp_min(0.0).mean())


def why_unexplained(z: Tensor, targets: Tensor) -> str | None:
    """Reason why :func:`explained` of features (N, K) and targets (N, C) says nothing, or ``None``."""
    if len(targets) < FEWEST_SAMPLES:
        return f"{len(targets)} samples are fewer than {FEWEST_SAMPLES}"
    if not targets.shape[1]:
        return "the inputs do not vary, or few of them are finite"
    known, _ = _finite(z, targets)
    if len(known) < FEWEST_SAMPLES:
        return f"{len(known)} of {len(z)} samples have finite features and inputs"
    return why_unfit(known)


def _finite(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Features and targets of the samples of which both are finite, in float64."""
    z, targets = as_float64(z), as_float64(targets)
    finite = torch.isfinite(z).all(1) & torch.isfinite(targets).all(1)
    return z[finite], targets[finite]


def _ridge_regression(z: Tensor, targets: Tensor, queries: Tensor, ridge: float) -> Tensor:
    """Predict targets (Q, C) of queries (Q, K) from those (N, C) of features (N, K)."""
    mean, spread = z.mean(0), z.std(0, correction=0)
    scale = torch.where(spread > ROUNDING * z.abs().amax(0), spread, math.inf)  # what does not vary says nothing
    known, asked = (z - mean) / scale, (queries - mean) / scale
    centred = targets - targets.mean(0)
    count, width = z.shape
    identity = ridge * count * torch.eye(min(count, width), dtype=z.dtype, device=z.device)
    if width <= count:
        weights: Tensor = torch.linalg.solve(known.T @ known + identity, known.T @ centred)
    else:  # the same weights by the smaller of the two matrices
        weights = known.T @ torch.linalg.solve(known @ known.T + identity, centred)
    return targets.mean(0) + asked @ weights


def lidar(z_NQK: Tensor, *, delta: float = 1e-4) -> float:
    """Effective rank of the linear-discriminant spectrum of N samples in Q views each.

    With the mean of each sample's views, Sigma_b their covariance and Sigma_w that of the views around them:

        lambda = eigenvalues of Sigma_w^-1/2 Sigma_b Sigma_w^-1/2,  p = lambda / sum lambda,  exp(-sum p log p)

    Sigma_w gets delta times the mean variance (of both matrices) on its diagonal. The paper adds delta itself, which is
    the same where features have unit variance; this way the value does not depend on the scale of the features.

    Args:
        z_NQK: features of sample n in view q.
        delta: ridge, as a share of the mean variance.

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


def is_constant(features: Tensor) -> bool:
    """True if all rows of (N, ...) finite features are equal, but for rounding."""
    largest = features.abs().amax()
    return not bool((features - features[:1]).abs().amax() > ROUNDING * largest)


def why_unfit(features: Tensor) -> str | None:
    """Reason why (N, ...) features say nothing, or ``None``."""
    finite = torch.isfinite(features).flatten(1).all(1)
    if not finite.all():
        return f"{int((~finite).sum())} of {len(features)} are not finite"
    if len(features) < 2:
        return f"there is {len(features)} sample"
    if is_constant(features):
        return "all samples have the same: they have collapsed to a point"
    return None


def why_unclassifiable(queries: Tensor, bank: Tensor, labels: Tensor) -> str | None:
    """Reason why an accuracy on these features would say nothing, or ``None``.

    Features that are constant are classified as some class, with an accuracy that is that class's share.

    Args:
        queries, bank: (Q, D) and (B, D).
        labels: (B,) of the bank.
    """
    if not torch.isfinite(queries).all():
        return f"{int((~torch.isfinite(queries).all(1)).sum())} of {len(queries)} queries are not finite"
    unfit = why_unfit(bank)
    if unfit is None and len(torch.unique(labels)) < 2:
        return "the labelled samples are of one class"
    return unfit
