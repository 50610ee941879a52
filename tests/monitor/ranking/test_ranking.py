"""Rank statistics against scipy and scikit-learn, and the values that must be NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from jepa_monitor.ranking import (
    GaussianBaseline,
    auroc,
    auroc_low_density,
    compressed_size,
    kendall,
    knn_distance,
    spearman,
    typicality,
    why_unrankable,
)

scores = st.lists(st.integers(-200, 200), min_size=2, max_size=30)


@settings(deadline=None, max_examples=50)
@given(scores, scores)
def test_auroc_is_scikit_learns_with_ties_and_large_scores(higher: list[int], lower: list[int]) -> None:
    if len(set(higher + lower)) == 1:
        assert math.isnan(auroc(higher, lower))
        return
    expected = roc_auc_score([1] * len(higher) + [0] * len(lower), higher + lower)
    assert auroc(higher, lower) == pytest.approx(expected)
    assert auroc(lower, higher) == pytest.approx(1.0 - expected)


def test_spearman_and_kendall_are_scipys() -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 200))
    assert spearman(a, b) == pytest.approx(stats.pearsonr(stats.rankdata(a), stats.rankdata(b)).statistic)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1.0, 1.0, 1.0], "equal"),
        ([1.0, math.nan, 2.0], "not finite"),
        ([1.0, math.inf], "not finite"),
        ([1.0], "only 1"),
    ],
)
def test_no_ranking_is_nan_with_a_reason(values: list[float], why: str) -> None:
    assert why in str(why_unrankable(values))
    other = list(range(len(values)))
    for statistic in (spearman, kendall):
        assert math.isnan(statistic(values, other))
        assert math.isnan(statistic(other, values))
    assert why_unrankable([1.0, 2.0]) is None


def test_auroc_without_a_set_is_nan() -> None:
    assert math.isnan(auroc([], [1.0]))
    assert math.isnan(auroc([1.0, math.nan], [1.0]))


def test_low_density_is_found() -> None:
    truth = np.arange(100.0)
    assert auroc_low_density(truth, truth) == 1.0
    assert auroc_low_density(-truth, truth) == 0.0
    assert math.isnan(auroc_low_density(truth, np.zeros(100)))


def test_typicality_is_two_sided() -> None:
    reference = np.array([-1.0, 0.0, 1.0])
    assert typicality([5.0, -5.0, 0.0], reference).tolist() == [-5.0, -5.0, 0.0]


def test_gaussian_baseline_is_mahalanobis() -> None:
    x = torch.randn(4000, 3) @ torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.8, -0.2], [0.5, 0.0, 1.2]])
    held_out = torch.randn(50, 3)
    oracle = EmpiricalCovariance().fit(x.numpy()).mahalanobis(held_out.numpy())
    fitted = GaussianBaseline.fit(x)
    assert fitted.axes.shape == (3, 3)
    baseline = fitted.score(held_out)
    torch.testing.assert_close(baseline, -0.5 * torch.from_numpy(oracle), rtol=2e-3, atol=1e-4)


def test_gaussian_baseline_finds_the_subspace_from_either_side() -> None:
    patterns = torch.linalg.qr(torch.randn(64, 2)).Q.T.double()
    for n in (40, 400):
        latent = 5.0 * torch.randn(n, 2).double()
        x = latent @ patterns + 0.05 * torch.randn(n, 64)
        baseline = GaussianBaseline.fit(x)
        assert baseline.axes.shape == (2, 64)
        torch.testing.assert_close(baseline.axes @ patterns.T @ patterns, baseline.axes, atol=2e-2, rtol=0.0)


def test_gaussian_baseline_refuses_equal_inputs() -> None:
    with pytest.raises(ValueError, match="differ"):
        GaussianBaseline.fit(torch.ones(5, 3))
    with pytest.raises(ValueError, match="at least 2"):
        GaussianBaseline.fit(torch.ones(1, 3))


def test_gaussian_baseline_leaves_out_what_is_not_finite() -> None:
    x = torch.randn(100, 3)
    spoilt = torch.cat([x, torch.full((1, 3), torch.nan)])
    assert torch.equal(GaussianBaseline.fit(spoilt).score(x), GaussianBaseline.fit(x).score(x))


def test_knn_distance_is_scikit_learns() -> None:
    z, reference = torch.randn(20, 4), torch.randn(50, 4)
    distances, _ = NearestNeighbors(n_neighbors=10).fit(reference.numpy()).kneighbors(z.numpy())
    torch.testing.assert_close(
        knn_distance(z, reference), torch.from_numpy(distances[:, -1]).double(), rtol=1e-5, atol=0
    )
    assert knn_distance(z, reference[:3]).shape == (20,)


def test_compressed_size_follows_complexity() -> None:
    images = torch.stack([torch.zeros(1, 16, 16), torch.rand(1, 16, 16)])
    flat, noisy = compressed_size(images, low=0.0, high=1.0)
    assert flat < 30 < 200 < noisy
