"""Intrinsic dimension of an embedding cloud: the number of directions in which its samples really differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import digamma
from scipy.stats import chi2, ncx2
from torch import Tensor

from ..errors import require_whole
from .checks import finite_rows, require_embeddings
from .neighbours import nearest, neighbourhood

MOST_POINTS, MOST_QUERIES = 20_000, 1_024
RESAMPLES = 1_000
SMALLEST = 0.25  # dimension


@dataclass(frozen=True)
class IntrinsicDimension:
    """Estimate and 95 % interval.

    Attributes:
        estimate: number of dimensions, not rounded.
        low, high: ends of the interval.
    """

    estimate: float
    low: float
    high: float

    @property
    def rank(self) -> int:
        """The estimate as a number of directions, at least 1."""
        return max(1, round(self.estimate))


def intrinsic_dimension(
    z: Tensor, *, k: int | None = None, calibrated: bool = True, seed: int = 0
) -> IntrinsicDimension:
    """Estimate the intrinsic dimension by maximum likelihood (Levina and Bickel 2004), calibrated on Gaussian clouds.

    Where the density is constant over a neighbourhood, m = 1/(k - 1) sum_{j < k} log(T_k / T_j) of an embedding, with
    the distances T_j to its neighbours, has the mean 1 / d. The inverse of the mean of m over embeddings (MacKay and
    Ghahramani 2005) is therefore unbiased on a cloud that is flat at that scale, and too small on any other: 13 for a
    Gaussian in 16 dimensions with 2,000 samples. The remedy is a calibration: the answer is the dimension of the
    isotropic Gaussian whose samples, as many, have that mean of m, which is an integral over the non-central
    chi-squared distribution. It is right to 10 % on spheres and mixtures of up to 32 dimensions too, and changes little
    below 5. Edges, as of a cube, and curvature at the scale of the neighbourhood leave it 10 to 25 % too small
    (``benchmarks/neighbourhoods.py``).

    The neighbourhood decides what counts as a dimension: noise has all K of them at its own scale, so few neighbours in
    a large cloud see noise, and a fixed share of the cloud sees the same whatever its size. Embeddings that differ by
    no more than float32's rounding are copies and count once, non-finite ones are left out. Of more than 20,000 a
    random 20,000 are used, and the neighbours of a random 1,024; both draws are fixed by the seed and by the values,
    not by their order.

    Args:
        z: (N, K) embeddings of any dtype, at least 12.
        k: number of neighbours, from 2; ``None`` is a fortieth of the cloud, at least 10.
        calibrated: ``False`` gives the maximum likelihood itself.
        seed: seed of both draws and of the bootstrap over embeddings that gives the interval; the global generator is
            left as it was.

    Returns:
        the dimension, at most K and N - 1, with its interval. That is of the draw of embeddings: it knows nothing of
        noise or curvature, which move the estimate itself.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for a shape other than (N, K), k out of range, too few different embeddings, or complex ones.
    """
    z = require_embeddings(z)
    require_whole(2, None, k=k)
    require_whole(0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows = finite_rows(z).double()
    points = _draw(torch.unique(rows, dim=0), MOST_POINTS, generator)[0]
    if len(points) == 1 < len(rows):
        raise ValueError("all embeddings are equal: the encoder has collapsed to a point.")
    k = _number(len(points), k)
    inverses = _inverses(points, k, generator)
    again = torch.randint(len(inverses), (RESAMPLES, len(inverses)), generator=generator)
    interval = inverses[again].mean(1).quantile(torch.tensor([0.975, 0.025], dtype=torch.float64))
    low, high, estimate = (
        _dimension(mean, len(points) - 1, k, min(z.shape[1], len(points) - 1), calibrated)
        for mean in [*interval.tolist(), float(inverses.mean())]
    )
    return IntrinsicDimension(estimate, low, high)


def _number(count: int, k: int | None) -> int:
    """Number of neighbours among this number of different embeddings."""
    chosen = neighbourhood(count) if k is None else k
    if count < chosen + 2:
        raise ValueError(
            f"{count} different finite embeddings cannot give the intrinsic dimension from {chosen} neighbours: use at "
            f"least {chosen + 2}."
        )
    return chosen


def _draw(rows: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw at most so many of (N, K) rows: they and their indices."""
    index = torch.randperm(len(rows), generator=generator)[:most].to(rows.device)
    return rows[index], index


def _inverses(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """m of the embeddings whose neighbours are looked at, on the CPU."""
    queries, own = _draw(points, MOST_QUERIES, generator)
    distances = nearest(queries, points, k, own=own)[0]
    rounding = torch.finfo(torch.float32).eps * (points - points.mean(0)).norm(dim=1).median()
    apart = distances > rounding
    known = apart.sum(1) > 1
    if not bool(known.any()):
        raise ValueError(
            f"each embedding has more than {k} copies within float32's rounding, so there is no dimension."
        )
    logs = torch.where(apart, (distances[:, -1:] / distances).log(), 0.0)[known]
    inverses: Tensor = logs.sum(1) / (apart[known].sum(1) - 1)
    return inverses.cpu()


def _dimension(inverse: float, others: int, k: int, largest: int, calibrated: bool) -> float:
    """Dimension that has this mean of m, at most the largest."""
    if inverse * largest <= 1.0:
        return float(largest)
    if not calibrated or inverse >= gaussian_inverse(SMALLEST, others, k):
        return 1.0 / inverse
    if inverse <= gaussian_inverse(largest, others, k):
        return float(largest)

    def excess(log_dimension: float) -> float:
        return gaussian_inverse(math.exp(log_dimension), others, k) - inverse

    return math.exp(brentq(excess, math.log(SMALLEST), math.log(largest), xtol=1e-4))


def gaussian_inverse(dimension: float, others: int, k: int) -> float:
    """Mean of 1/(k - 1) sum_{j < k} log(T_k / T_j) for samples of N(0, I), with the distances T_j to the others.

    About a sample x, squared distances are non-central chi-squared with |x|^2. Within the distance T_k, which has the
    probability u about it, the nearer ones are independent, each within a distance of probability u v with a uniform v.

    Args:
        dimension: number of dimensions, any positive number.
        others: number of other samples.
        k: number of neighbours.
    """
    u = math.exp(digamma(k) - digamma(others + 1))
    minus_log_v, weights = np.polynomial.laguerre.laggauss(8)
    norms = chi2.ppf((np.arange(32) + 0.5) / 32, dimension)[:, None]
    log_distances = 0.5 * np.log(ncx2.ppf(u * np.exp(-minus_log_v), dimension, norms))
    log_farthest = 0.5 * np.log(ncx2.ppf(u, dimension, norms))
    return float((log_farthest - log_distances @ weights[:, None]).mean())
