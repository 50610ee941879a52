"""Clouds that are not N(0, I), each in its own way, and the statistics that see them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def sphere(n: int, k: int) -> Tensor:
    return math.sqrt(k) * torch.nn.functional.normalize(torch.randn(n, k), dim=1)


def clusters(n: int, k: int) -> Tensor:
    """32 clusters without mean and with covariance I, which only higher moments see."""
    z = (torch.randn(32, k)[torch.randint(32, (n,))] + torch.randn(n, k)).double()
    z = z - z.mean(0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T


def laplace(n: int, k: int) -> Tensor:
    return torch.distributions.Laplace(0.0, math.sqrt(0.5)).sample((n, k))


def t5(n: int, k: int) -> Tensor:
    return torch.distributions.StudentT(5.0).sample((n, k)) / math.sqrt(5.0 / 3.0)


def half_rank(n: int, k: int) -> Tensor:
    return torch.randn(n, k // 2) @ torch.linalg.qr(torch.randn(k, k)).Q[: k // 2]


def one_bimodal_axis(n: int, k: int) -> Tensor:
    z = torch.randn(n, k)
    # its variance makes it a principal axis of its own
    z[:, 0] = 1.5 * (torch.randint(2, (n,)) * 2.0 - 1.0 + 0.1 * torch.randn(n))
    return z


def shifted_mean(n: int, k: int) -> Tensor:
    return torch.randn(n, k) + 0.3


def scaled(n: int, k: int) -> Tensor:
    return 1.5 * torch.randn(n, k)


def power_law(n: int, k: int) -> Tensor:
    return torch.randn(n, k) * torch.arange(1, k + 1) ** -0.5


SLICES = frozenset({"sliced_ep_ratio", "sliced_ep_ratio_max"})
MARDIA = frozenset({"skewness_z", "kurtosis_z"})
NORMS = frozenset({"norm_variance_ratio", "norm_ks"})
SECOND_ORDER = frozenset({"covariance_error_ratio", "effective_rank_ratio"})
AXES = frozenset({"axis_ep_ratio_max"})
MEAN = frozenset({"mean_error_ratio"})

# name -> cloud, statistics that must see it, statistics that do not, at N = 1024, K = 64
ALTERNATIVES: dict[str, tuple[Callable[[int, int], Tensor], frozenset[str], frozenset[str]]] = {
    "sphere": (sphere, NORMS | MARDIA, SLICES | SECOND_ORDER | AXES | MEAN),
    "clusters": (clusters, frozenset({"skewness_z"}), SLICES | AXES | NORMS | MEAN),
    "laplace": (laplace, NORMS | MARDIA, SLICES | {"covariance_error_ratio"} | MEAN),
    "t5": (t5, NORMS | MARDIA, SLICES | MEAN),
    "half rank": (half_rank, SLICES | SECOND_ORDER | NORMS, MARDIA | AXES | MEAN),
    "one bimodal axis": (one_bimodal_axis, AXES, SLICES | MARDIA | MEAN),
    "shifted mean": (shifted_mean, SLICES | MEAN | {"norm_ks"}, SECOND_ORDER | MARDIA | AXES),
    "scaled": (scaled, SLICES | NORMS | {"covariance_error_ratio"}, MARDIA | AXES | {"effective_rank_ratio"}),
    "power law": (power_law, SLICES | NORMS | SECOND_ORDER, MARDIA | AXES),
}
