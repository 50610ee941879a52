"""Moments and norms against numpy, scipy and loops; null values against draws; invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jepa_monitor.gaussianity import (
    covariance_error,
    covariance_error_null,
    mardia,
    mardia_null,
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


def mardia_by_loops(z: np.ndarray) -> tuple[float, float]:
    """Skewness and kurtosis as Mardia (1970) writes them."""
    centred = z - z.mean(0)
    inverse = np.linalg.inv(centred.T @ centred / len(z))
    skewness = kurtosis = 0.0
    for x in centred:
        kurtosis += float(x @ inverse @ x) ** 2 / len(z)
        for y in centred:
            skewness += float(x @ inverse @ y) ** 3 / len(z) ** 2
    return skewness, kurtosis


@pytest.mark.parametrize(("n", "k"), [(30, 3), (30, 6), (40, 1), (12, 10)])
def test_mardia_against_loops(n: int, k: int) -> None:
    z = torch.randn(n, k).exp().double() @ torch.randn(k, k).double()
    skewness, kurtosis = mardia_by_loops(z.numpy())
    null, found = mardia_null(n, k), mardia(z)
    assert found.skewness_z * null.skewness_sd + null.skewness == pytest.approx(skewness, rel=1e-7)
    assert found.kurtosis_z * null.kurtosis_sd + null.kurtosis == pytest.approx(kurtosis, rel=1e-7)


def test_null_of_mardia_tends_to_the_theory_for_many_samples() -> None:
    n, k = 10**6, 5
    null = mardia_null(n, k)
    assert null.skewness * n / 6 == pytest.approx(k * (k + 1) * (k + 2) / 6, rel=1e-4)
    assert null.skewness_sd * n / 6 == pytest.approx(math.sqrt(k * (k + 1) * (k + 2) / 3), rel=0.2)
    assert null.kurtosis == pytest.approx(k * (k + 2), rel=1e-4)
    assert null.kurtosis_sd == pytest.approx(math.sqrt(8 * k * (k + 2) / n), rel=1e-4)


@pytest.mark.parametrize(
    ("n", "k", "draws"),
    [(12, 10, 1500), (10, 40, 600), (64, 4, 1500), (256, 8, 800), (512, 32, 250), (512, 64, 200), (1024, 64, 120),
     (2048, 16, 200), (300, 90, 200)],
)  # fmt: skip
def test_null_of_mardia(n: int, k: int, draws: int) -> None:
    z_scores = np.array([mardia(torch.randn(n, k)) for _ in range(draws)])
    deviation = z_scores.std(0)
    fourth = ((z_scores - z_scores.mean(0)) ** 4).mean(0) / deviation**4
    assert (abs(z_scores.mean(0)) < 4.0 * deviation / math.sqrt(draws)).all()
    # the skewness' deviation is itself drawn, 256 times
    assert (abs(deviation - 1.0) < 4.0 * np.sqrt((fourth - 1.0) / 4.0 * (1.0 / draws + 1.0 / 256))).all()


def test_an_affine_map_changes_no_skewness_or_kurtosis() -> None:
    z = torch.randn(100, 6).exp().double()
    mapped = z @ torch.randn(6, 6).double() + 10.0
    np.testing.assert_allclose(mardia(mapped), mardia(z), rtol=1e-7)


def test_mardia_leaves_out_dimensions_without_extent() -> None:
    z = torch.randn(100, 6).exp().double()
    flat = z @ torch.linalg.qr(torch.randn(9, 9).double()).Q[:6]
    np.testing.assert_allclose(mardia(flat), mardia(z), rtol=1e-7)
