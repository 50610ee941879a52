"""LiDAR against scipy's generalised eigenvalues, its bound, and its invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepa_monitor.evaluation import lidar, lidar_bound


def brute_force(z_NQK: Tensor, delta: float) -> float:
    """The formula, sample by sample, with scipy's generalised eigenvalues."""
    z = z_NQK.double().numpy()
    n, q, k = z.shape
    grand = z.reshape(n * q, k).mean(0)
    between, within = np.zeros((k, k)), np.zeros((k, k))
    for views in z:
        mean = views.mean(0)
        between += np.outer(mean - grand, mean - grand) / (n - 1)
        for view in views:
            within += np.outer(view - mean, view - mean) / (n * (q - 1))
    within += delta * (np.trace(between) + np.trace(within)) / k * np.eye(k)
    spectrum = scipy.linalg.eigh(between, within, eigvals_only=True).clip(0.0)
    shares = spectrum / spectrum.sum()
    shares = shares[shares > 0.0]
    return math.exp(-np.sum(shares * np.log(shares)))


def clustered(n: int = 30, q: int = 4, k: int = 6, *, live: int = 3, noise: float = 0.3) -> Tensor:
    """Samples that differ in ``live`` of k directions, and views that differ in all."""
    samples = torch.randn(n, 1, k) * (torch.arange(k) < live)
    return samples + noise * torch.randn(n, q, k)


@pytest.mark.parametrize("shape", [(30, 4, 6), (5, 2, 9), (2, 2, 1), (40, 10, 3)])
@pytest.mark.parametrize("delta", [1e-4, 0.1])
def test_it_is_the_formula(shape: tuple[int, int, int], delta: float) -> None:
    z = clustered(*shape)
    assert lidar(z, delta=delta) == pytest.approx(brute_force(z, delta), rel=1e-6)


def test_it_counts_directions_that_tell_samples_apart() -> None:
    for live in (1, 2, 4):
        z = clustered(400, 10, 8, live=live, noise=0.01)
        assert lidar(z) == pytest.approx(live, rel=0.02)


def test_views_that_change_nothing_leave_the_rank_of_the_means() -> None:
    """Without Sigma_w the spectrum is that of the covariance, whose effective rank has a closed form here."""
    z = torch.diag(torch.tensor([1.0, 1.0, 2.0])).repeat(2, 1)
    z[3:] *= -1.0  # variances in the ratio 1 : 1 : 4
    shares = torch.tensor([1.0, 1.0, 4.0]) / 6.0
    assert lidar(z[:, None].expand(6, 3, 3)) == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())))


def test_the_bound_is_met_and_kept() -> None:
    assert lidar_bound(10, 4) == 4
    assert lidar_bound(3, 4) == 2
    simplex = torch.eye(3)[:, None].expand(3, 2, 3)
    assert lidar(simplex) == pytest.approx(lidar_bound(3, 3))


def test_noise_that_has_nothing_to_do_with_the_sample_comes_near_the_bound() -> None:
    """K exp(-(K / (n - 1) + K / (n (q - 1))) / 2), the spread of the eigenvalues of two Wishart matrices."""
    n, q, k = 400, 8, 20
    expected = k * math.exp(-0.5 * (k / (n - 1) + k / (n * (q - 1))))
    assert lidar(torch.randn(n, q, k)) == pytest.approx(expected, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-10.0, 10.0), seed=st.integers(0, 99))
def test_scale_offset_rotation_and_order_change_nothing(scale: float, offset: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = clustered().double()
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())[0]
    order, turn = torch.randperm(30, generator=generator), torch.randperm(4, generator=generator)
    moved = scale * (z @ rotation)[order][:, turn] + offset
    assert lidar(moved) == pytest.approx(lidar(z), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 2), (3, 1, 2)])
def test_one_sample_or_one_view_is_nan(shape: tuple[int, int, int]) -> None:
    assert math.isnan(lidar(torch.randn(shape)))


def test_without_any_difference_it_is_nan() -> None:
    assert math.isnan(lidar(torch.ones(5, 3, 2)))
    assert math.isnan(lidar(torch.full((5, 3, 2), torch.nan)))
