"""Label-free baselines against scikit-learn, and the trap of scoring what they were fitted to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from torch import Tensor

from jepa_monitor.density import log_volume
from jepa_monitor.ranking import (
    GaussianBaseline,
    Mahalanobis,
    NearestNeighbours,
    auroc,
    compressed_size,
    fingerprints,
    knn_distance,
    log_frobenius,
    shares_samples,
    spearman,
)


def correlated(count: int, size: int) -> Tensor:
    return torch.randn(count, size).double() @ (torch.randn(size, size).double() * torch.logspace(0, -2, size)) + 3.0


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


@pytest.mark.parametrize(
    ("deviations", "kept"),
    [([2.2, 1.9, 0.05, 0.04], 2), ([2.0, 1.5, 1.1, 0.8], 4), ([1.0, 0.8, 1e-4], 2), ([1.0], 1)],
)
def test_gaussian_baseline_cuts_at_a_gap_and_only_there(deviations: list[float], kept: int) -> None:
    x = torch.randn(4000, len(deviations)) * torch.tensor(deviations)
    assert len(GaussianBaseline.fit(x).deviations) == kept


@pytest.mark.parametrize("baseline", [GaussianBaseline, Mahalanobis])
def test_equal_or_too_few_references_are_refused(baseline: type[GaussianBaseline] | type[Mahalanobis]) -> None:
    with pytest.raises(ValueError, match="differ"):
        baseline.fit(torch.ones(5, 3))
    with pytest.raises(ValueError, match="at least 2"):
        baseline.fit(torch.ones(1, 3))


@pytest.mark.parametrize("baseline", [GaussianBaseline, Mahalanobis, NearestNeighbours])
def test_references_that_are_not_finite_are_left_out(
    baseline: type[GaussianBaseline] | type[Mahalanobis] | type[NearestNeighbours],
) -> None:
    x, held_out = torch.randn(100, 3), torch.randn(20, 3)
    spoilt = torch.cat([x, torch.full((1, 3), torch.nan)])
    assert torch.equal(baseline.fit(spoilt).score(held_out), baseline.fit(x).score(held_out))


@pytest.mark.parametrize(("count", "size"), [(500, 20), (30, 50), (40, 1), (5000, 3)])
def test_mahalanobis_is_scikit_learns_ledoit_wolf(count: int, size: int) -> None:
    x, held_out = correlated(count + 50, size).split([count, 50])
    oracle = LedoitWolf().fit(x.numpy())
    fitted = Mahalanobis.fit(x)
    assert fitted.shrinkage == pytest.approx(oracle.shrinkage_, abs=1e-12)
    expected = -0.5 * torch.from_numpy(oracle.mahalanobis(held_out.numpy()))
    torch.testing.assert_close(fitted.score(held_out), expected, rtol=1e-10, atol=0.0)


def test_mahalanobis_keeps_to_itself_what_is_not_finite() -> None:
    baseline, held_out = Mahalanobis.fit(correlated(100, 4)), torch.randn(3, 4).double()
    clean = baseline.score(held_out)
    held_out[1, 2] = torch.inf
    score = baseline.score(held_out)
    assert not torch.isfinite(score[1])
    assert torch.equal(score[[0, 2]], clean[[0, 2]])


def test_mahalanobis_refuses_a_singular_covariance() -> None:
    for _ in range(20):  # Ledoit-Wolf does not shrink two samples; rounding may or may not leave a positive pivot
        with pytest.raises(ValueError, match="singular"):
            Mahalanobis.fit(torch.randn(2, 2))


def test_nearest_neighbours_score_by_minus_the_distance() -> None:
    z, reference = torch.randn(20, 4).double(), torch.randn(50, 4).double()
    assert torch.equal(NearestNeighbours.fit(reference, k=3).score(z), -knn_distance(z, reference, k=3))


@pytest.mark.parametrize("fit", [Mahalanobis.fit, partial(NearestNeighbours.fit, k=1)])
def test_in_sample_scores_are_worthless_and_refused(fit: Callable[[Tensor], Mahalanobis | NearestNeighbours]) -> None:
    fitted, held_out, more = correlated(240, 200).split(80)
    baseline = fit(fitted)
    mixed = baseline.score(torch.cat([fitted, held_out]))  # not all of it is known, so it passes
    assert auroc(mixed[:80], mixed[80:]) > 0.99
    assert auroc(baseline.score(more), baseline.score(held_out)) == pytest.approx(0.5, abs=0.12)
    for known in (fitted, fitted.clone(), fitted.flip(0)[:20]):
        with pytest.raises(ValueError, match="score another split"):
            baseline.score(known)


def test_copies_are_found_whatever_their_precision() -> None:
    reference = torch.randn(10, 2, 3).bfloat16()
    z = torch.cat([torch.randn(2, 2, 3), reference[3:4].float(), torch.zeros(1, 2, 3)])
    assert shares_samples(z, reference).tolist() == [False, False, True, False]
    assert shares_samples(-torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [True]


def test_a_value_that_all_samples_share_is_no_leak() -> None:
    collapsed = torch.ones(20, 3)
    assert torch.equal(NearestNeighbours.fit(collapsed).score(collapsed), torch.zeros(20, dtype=torch.float64))


def test_log_frobenius_is_the_norm_of_the_jacobian() -> None:
    jacobian = torch.randn(5, 4, 9).double()
    norm = torch.linalg.matrix_norm(jacobian).log()
    torch.testing.assert_close(log_frobenius(jacobian @ jacobian.mT), norm, rtol=1e-12, atol=1e-12)
    spoilt = torch.eye(3).double()
    spoilt[0, 1] = torch.nan
    assert log_frobenius(torch.stack([torch.eye(3).double(), spoilt])).isnan().tolist() == [False, True]


def test_log_frobenius_can_reverse_the_ranking() -> None:
    # one direction is stretched while two shrink: the norm grows, the volume falls
    stretch = torch.linspace(0.3, 2.0, 30).double()
    gram = torch.diag_embed(torch.stack([stretch, -stretch, -stretch], dim=1).mul(2.0).exp())
    torch.testing.assert_close(log_volume(gram), -stretch)
    assert spearman(log_frobenius(gram), log_volume(gram)) == -1.0


def test_compressed_size_follows_complexity() -> None:
    images = torch.stack([torch.zeros(1, 16, 16), torch.rand(1, 16, 16)])
    flat, noisy = compressed_size(images, low=0.0, high=1.0)
    assert flat < 30 < 200 < noisy


def test_fingerprints_tell_samples_apart() -> None:
    samples = torch.rand(7, 1, 4, 4)
    prints = fingerprints(torch.cat([samples, samples[:2]]))
    assert len(prints.unique()) == 7
    assert torch.equal(prints[7:], prints[:2])
