"""Spread against NumPy, LiDAR against scipy's generalised eigenvalues, both against closed forms; reasons."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_monitor.evaluation import feature_statistics, lidar, lidar_bound, recovery
from jepa_monitor.evaluation.features import is_constant, why_unclassifiable, why_unfit


def test_statistics_are_numpys() -> None:
    z = torch.randn(50, 4) * torch.tensor([1.0, 2.0, 0.1, 3.0]) + 1.0
    values, x = feature_statistics(z), z.double().numpy()
    assert values["std_mean"] == pytest.approx(x.std(0, ddof=1).mean())
    assert values["std_min"] == pytest.approx(x.std(0, ddof=1).min())
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert values["std_l2_normalised_ratio"] == pytest.approx(2.0 * unit.std(0, ddof=1).mean())


def test_an_isotropic_gaussian_has_ratio_one() -> None:
    values = feature_statistics(5.0 * torch.randn(4000, 16))
    assert values["std_l2_normalised_ratio"] == pytest.approx(1.0, abs=0.01)
    assert values["rank_ratio"] == pytest.approx(1.0, abs=0.01)
    assert values["std_mean"] == pytest.approx(5.0, rel=0.02)


def test_a_collapse_to_a_point_is_zero_and_its_rank_nan() -> None:
    values = feature_statistics(torch.full((20, 4), 0.3))
    assert values["std_mean"] == pytest.approx(0.0, abs=1e-12)
    assert values["std_l2_normalised_ratio"] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(values["rank_ratio"])


def test_a_collapse_to_a_line_has_rank_one() -> None:
    values = feature_statistics(torch.randn(200, 1) * torch.ones(8))
    assert values["rank_ratio"] == pytest.approx(1 / 8, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_ratios_do_not_depend_on_scale_and_deviations_follow_it(scale: float) -> None:
    z = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
    first, second = feature_statistics(z), feature_statistics(scale * z)
    for name in ("std_l2_normalised_ratio", "rank_ratio"):
        assert second[name] == pytest.approx(first[name])
    for name in ("std_mean", "std_min"):
        assert second[name] == pytest.approx(scale * first[name])


def test_recovery_is_a_ridge_regression_of_principal_components_on_features() -> None:
    inputs = torch.randn(60, 9) * torch.arange(1, 10)
    z = torch.cat([inputs[:, :3].tanh(), torch.randn(60, 2)], 1)
    components = PCA(4, whiten=True).fit_transform(inputs.double().numpy())
    targets, features = components * math.sqrt(60 / 59), z.double().numpy()
    errors = np.zeros(4)
    for held_out in (0, 1):
        at, fitted = np.arange(held_out, 60, 2), np.arange(1 - held_out, 60, 2)
        scaler = StandardScaler().fit(features[fitted])
        model = Ridge(alpha=0.01 * 30).fit(scaler.transform(features[fitted]), targets[fitted])
        errors += np.square(targets[at] - model.predict(scaler.transform(features[at]))).sum(0)
    expected = np.clip(1.0 - errors / np.square(targets).sum(0), 0.0, None).mean()
    assert recovery(z, inputs, components=4, ridge=0.01) == pytest.approx(expected)


def test_recovery_goes_from_nothing_to_everything() -> None:
    inputs = torch.randn(400, 12)
    assert recovery(inputs @ torch.randn(12, 12), inputs) == pytest.approx(1.0, abs=0.02)
    assert recovery(torch.randn(400, 6), inputs) == pytest.approx(0.0, abs=0.02)
    assert recovery(inputs[:, :6], inputs[:, :6].repeat(1, 2)) == pytest.approx(1.0, abs=0.02)
    half = recovery(inputs[:, :6], inputs)
    assert 0.3 < half < 0.6
    assert recovery(torch.ones(400, 3), inputs) == 0.0
    assert recovery(torch.randn(40, 300), torch.randn(40, 12)) < 0.1  # learnt by heart
    assert math.isnan(recovery(inputs, torch.ones(400, 12)))
    assert math.isnan(recovery(inputs[:15], inputs[:15]))
    for count in (16, 32, 64):  # with fewer samples there are fewer components, and no zero that means nothing
        few = torch.randn(count, 6) @ torch.randn(6, 200)
        assert recovery(few @ torch.randn(200, 3), few) > 0.05


def test_wide_features_have_the_same_weights_by_the_smaller_matrix() -> None:
    inputs, narrow = torch.randn(60, 9), torch.randn(60, 20)
    padded = torch.cat([narrow, torch.zeros(60, 40)], 1)  # 30 samples are fitted to: 20 < 30 < 60
    assert recovery(padded, inputs) == pytest.approx(recovery(narrow, inputs))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10.0, 10.0))
def test_recovery_depends_neither_on_scale_nor_on_shift(scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 8, generator=generator).double()
    z = inputs[:, :4].tanh() + 0.1 * torch.randn(60, 4, generator=generator)
    expected = recovery(z, inputs)
    assert recovery(scale * z + shift, inputs) == pytest.approx(expected, abs=1e-6)
    assert recovery(z, scale * inputs + shift) == pytest.approx(expected, abs=1e-6)


def lidar_by_loops(z_NQK: Tensor, delta: float) -> float:
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
def test_lidar_is_the_formula(shape: tuple[int, int, int], delta: float) -> None:
    z = clustered(*shape)
    assert lidar(z, delta=delta) == pytest.approx(lidar_by_loops(z, delta), rel=1e-6)


def test_lidar_counts_directions_that_tell_samples_apart() -> None:
    for live in (1, 2, 4):
        z = clustered(400, 10, 8, live=live, noise=0.01)
        assert lidar(z) == pytest.approx(live, rel=0.02)


def test_views_that_change_nothing_leave_the_rank_of_the_means() -> None:
    """The spectrum without Sigma_w is that of the covariance, whose effective rank has a closed form here."""
    z = torch.diag(torch.tensor([1.0, 1.0, 2.0])).repeat(2, 1)
    z[3:] *= -1.0  # variances in the ratio 1 : 1 : 4
    shares = torch.tensor([1.0, 1.0, 4.0]) / 6.0
    assert lidar(z[:, None].expand(6, 3, 3)) == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())))


def test_the_bound_of_lidar_is_met_and_kept() -> None:
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
def test_lidar_ignores_scale_offset_rotation_and_order(scale: float, offset: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = clustered().double()
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator).double())[0]
    order, turn = torch.randperm(30, generator=generator), torch.randperm(4, generator=generator)
    moved = scale * (z @ rotation)[order][:, turn] + offset
    assert lidar(moved) == pytest.approx(lidar(z), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 2), (3, 1, 2)])
def test_lidar_of_one_sample_or_one_view_is_nan(shape: tuple[int, int, int]) -> None:
    assert math.isnan(lidar(torch.randn(shape)))


def test_lidar_without_any_difference_is_nan() -> None:
    assert math.isnan(lidar(torch.ones(5, 3, 2)))
    assert math.isnan(lidar(torch.full((5, 3, 2), torch.nan)))


def test_rounding_is_no_spread() -> None:
    z = torch.full((30, 4), 0.7) + 1e-7 * torch.rand(30, 4)
    assert is_constant(z)
    assert not is_constant(z + 1e-4 * torch.rand(30, 4))
    assert is_constant(torch.zeros(3, 2))
    for scale in (1e-6, 1e6):
        assert is_constant(scale * z)
        assert not is_constant(scale * torch.rand(30, 4))
    assert math.isnan(feature_statistics(z)["rank_ratio"])


def test_reasons() -> None:
    z, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    broken = z.clone()
    broken[2, 1] = torch.inf
    assert why_unfit(z) is None
    assert why_unfit(broken) == "1 of 6 are not finite"
    assert "1 sample" in str(why_unfit(z[:1]))
    assert "collapsed" in str(why_unfit(torch.ones(3, 2)))
    assert why_unclassifiable(z, z, labels) is None
    assert "1 of 6 queries" in str(why_unclassifiable(broken, z, labels))
    assert "one class" in str(why_unclassifiable(z, z, 0 * labels))
