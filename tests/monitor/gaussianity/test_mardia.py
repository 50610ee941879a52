"""Mardia's moments against loops; null moments against draws; invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_monitor.gaussianity import mardia, mardia_null


def brute_force(z: np.ndarray) -> tuple[float, float]:
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
def test_against_loops(n: int, k: int) -> None:
    z = torch.randn(n, k).exp().double() @ torch.randn(k, k).double()
    skewness, kurtosis = brute_force(z.numpy())
    null, found = mardia_null(n, k), mardia(z)
    assert found.skewness_z * null.skewness_sd + null.skewness == pytest.approx(skewness, rel=1e-7)
    assert found.kurtosis_z * null.kurtosis_sd + null.kurtosis == pytest.approx(kurtosis, rel=1e-7)


def test_null_tends_to_the_theory_for_many_samples() -> None:
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
def test_null(n: int, k: int, draws: int) -> None:
    z_scores = np.array([mardia(torch.randn(n, k)) for _ in range(draws)])
    deviation = z_scores.std(0)
    fourth = ((z_scores - z_scores.mean(0)) ** 4).mean(0) / deviation**4
    assert (abs(z_scores.mean(0)) < 4.0 * deviation / math.sqrt(draws)).all()
    # the skewness' deviation is itself drawn, 256 times
    assert (abs(deviation - 1.0) < 4.0 * np.sqrt((fourth - 1.0) / 4.0 * (1.0 / draws + 1.0 / 256))).all()


def test_an_affine_map_changes_nothing() -> None:
    z = torch.randn(100, 6).exp().double()
    mapped = z @ torch.randn(6, 6).double() + 10.0
    np.testing.assert_allclose(mardia(mapped), mardia(z), rtol=1e-7)


def test_dimensions_without_extent_are_left_out() -> None:
    z = torch.randn(100, 6).exp().double()
    flat = z @ torch.linalg.qr(torch.randn(9, 9).double()).Q[:6]
    np.testing.assert_allclose(mardia(flat), mardia(z), rtol=1e-7)
