"""The cloud that statistics share: spectrum and whitened axes against numpy, and the law of its null draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_monitor.gaussianity import Cloud
from jepa_monitor.gaussianity.cloud import gaussian_white


@pytest.mark.parametrize(("n", "k"), [(40, 6), (6, 40), (20, 20)])
def test_singular_values_and_axes_are_numpys(n: int, k: int) -> None:
    z = torch.randn(n, k).double() + 5.0
    left, singular, _ = np.linalg.svd(z.numpy() - z.numpy().mean(0), full_matrices=False)
    cloud = Cloud.of(z)
    np.testing.assert_allclose(cloud.singular_values[: min(n - 1, k)], singular[: min(n - 1, k)], rtol=1e-7)
    axes = min(n - 2, k)
    assert cloud.white.shape == (n, axes)
    np.testing.assert_allclose(cloud.white.abs(), np.sqrt(n) * abs(left[:, :axes]), rtol=1e-6, atol=1e-8)


def test_whitened_axes_are_orthonormal_in_a_spread_spectrum() -> None:
    z = torch.randn(200, 12).double() * torch.logspace(0, -4, 12) + 3.0
    white = Cloud.of(z).white
    torch.testing.assert_close(white.T @ white / 200, torch.eye(12).double(), rtol=0.0, atol=1e-6)
    assert float(white.mean(0).abs().max()) < 1e-9


def test_null_draws_are_white() -> None:
    white = gaussian_white(50, 8, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(white.T @ white / 50, torch.eye(8).double(), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(white.mean(0), torch.zeros(8).double(), rtol=0.0, atol=1e-6)


def test_a_cloud_of_a_cloud_is_itself() -> None:
    cloud = Cloud.of(torch.randn(5, 2))
    assert Cloud.of(cloud) is cloud
