"""First and second moments and norms against numpy and scipy; null values against draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jepa_monitor.gaussianity import (
    covariance_error,
    covariance_error_null,
    mean_error,
    mean_error_null,
    norm_concentration,
    norm_concentration_null,
)


@pytest.mark.parametrize(("n", "k"), [(50, 6), (6, 50), (2, 1), (300, 300)])
def test_against_numpy(n: int, k: int) -> None:
    z = (1.3 * torch.randn(n, k) + 0.2).double()
    array = z.numpy()
    covariance = np.atleast_2d(np.cov(array.T))
    assert covariance_error(z) == pytest.approx(((covariance - np.eye(k)) ** 2).sum() / k, rel=1e-10)
    assert mean_error(z) == pytest.approx((array.mean(0) ** 2).sum(), rel=1e-10)
    variance = (array**2).sum(1).var(ddof=1)
    assert norm_concentration(z).variance_ratio == pytest.approx(variance / (2 * k), rel=1e-10)


def test_covariance_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert covariance_error(z) == pytest.approx(2 * (1 / 3) ** 2 / 2)  # C = 2/3 I


@pytest.mark.parametrize(("n", "k"), [(1, 3), (40, 1), (200, 64), (100, 4096)])
@pytest.mark.parametrize("scale", [1.0, 0.9, 3.0])
def test_ks_against_scipy(n: int, k: int, scale: float) -> None:
    z = scale * torch.randn(n, k).double()
    expected = stats.kstest(z.square().sum(1).numpy(), stats.chi2(k).cdf).statistic
    assert norm_concentration(z).ks == pytest.approx(math.sqrt(n) * expected, rel=1e-7)


def test_null_of_ks_against_the_exact_law() -> None:
    for n in (10, 100):
        assert norm_concentration_null(n, 3).ks == pytest.approx(math.sqrt(n) * stats.kstwo(n).mean(), abs=4e-3)
    assert norm_concentration_null(10**12, 3).ks == pytest.approx(stats.kstwobign.mean(), abs=1e-6)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 40), (30, 4), (64, 64), (400, 32)])
def test_nulls(n: int, k: int) -> None:
    clouds = torch.randn(400, n, k)
    norms = [norm_concentration(z) for z in clouds]
    null = norm_concentration_null(n, k)
    cases = {
        "covariance": ([covariance_error(z) for z in clouds], covariance_error_null(n, k)),
        "mean": ([mean_error(z) for z in clouds], mean_error_null(n, k)),
        "norm variance": ([norm.variance_ratio for norm in norms], null.variance_ratio),
        "ks": ([norm.ks for norm in norms], null.ks),
    }
    for name, (values, expected) in cases.items():
        assert abs(np.mean(values) - expected) < 4.0 * np.std(values) / math.sqrt(400), name
