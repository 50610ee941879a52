"""Effective rank (RankMe, arXiv 2210.02885) of an embedding cloud, and its value under N(0, I)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cloud import Cloud

NULL_DRAWS = 1024
# from this many singular values on, the asymptotic mean is right to 5e-4
FEW = 32

Array = NDArray[np.float64]


def effective_rank(z: Tensor | Cloud) -> float:
    """exp(-sum p log p), p = s / sum s, with the singular values s of the centred (N, K) embeddings.

    From 1 (a line) to min(N - 1, K); NaN for a constant cloud or fewer than two samples.
    """
    cloud = Cloud.of(z)
    if cloud.n < 2:
        return math.nan
    shares = cloud.singular_values / cloud.singular_values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def effective_rank_null(n: int, k: int) -> float:
    """Mean of :func:`effective_rank` under N(0, s^2 I), to 5e-4 of itself; NaN for fewer than two samples.

    Centred, it is a Gaussian matrix with N - 1 rows, and its transpose has the same spectrum: N and K change roles
    where K > N - 1. With fewer than 32 singular values it is drawn; else it is the Marchenko-Pastur integral with
    Bai and Silverstein's correction (2004, Ann. Probab. 32), for K << N about K exp(-K / 8N).
    """
    few, many = sorted((max(n - 1, 0), k))
    if few == 0:
        return math.nan
    return _drawn(few, many) if few < FEW else _asymptotic(few, many)


@lru_cache(maxsize=256)
def _drawn(few: int, many: int) -> float:
    rng = np.random.default_rng(0)
    # Bartlett: the triangular factor of a Wishart matrix, so that the cost does not depend on the number of samples
    factor = np.tril(rng.standard_normal((NULL_DRAWS, few, few)), -1)
    diagonal = np.arange(few)
    factor[:, diagonal, diagonal] = np.sqrt(rng.chisquare(many - diagonal, size=(NULL_DRAWS, few)))
    singular = torch.linalg.svdvals(torch.from_numpy(factor))
    shares = singular / singular.sum(1, keepdim=True)
    return float(torch.exp(torch.special.entr(shares).sum(1)).mean())


def _asymptotic(few: int, many: int) -> float:
    """exp(log A - B / A) with the means of A = sum s and B = sum s log s."""
    total = _mean_over_spectrum(np.sqrt, few, many)
    with_log = _mean_over_spectrum(lambda x: 0.5 * np.sqrt(x) * np.log(np.maximum(x, 1e-300)), few, many)
    return math.exp(math.log(total) - with_log / total)


def _mean_over_spectrum(function: Callable[[Array], Array], few: int, many: int) -> float:
    """Mean of the sum of a function over the eigenvalues of a Wishart matrix of this size, divided by ``many``."""
    ratio = few / many
    angle = (np.arange(2000) + 0.5) * (math.pi / 2000)
    x = 1.0 + ratio - 2.0 * math.sqrt(ratio) * np.cos(angle)
    density = 2.0 * np.sin(angle) ** 2 / x  # Marchenko-Pastur's, in the angle and over pi
    edges = np.array([(1.0 - math.sqrt(ratio)) ** 2, (1.0 + math.sqrt(ratio)) ** 2])
    values = function(x)
    correction = 0.5 * float(function(edges).mean()) - 0.5 * float(values.mean())
    return few * float((density * values).mean()) + correction
