"""ManifoldDensity: what it ranks on the manifold and beside it, and its formula by dense matrices."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from jepa_monitor.density.densities import NeighbourDensity
from jepa_monitor.density.manifold import SHARED, STEP, ManifoldDensity
from jepa_monitor.ranking import auroc, spearman


def sheet(count: int, *, noise: float, seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """Curved two-dimensional sheet in ``size`` dimensions with noise, and the true log density on it."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    lifted = torch.zeros(count, size, dtype=torch.float64)
    lifted[:, :2], lifted[:, 2] = flat, 0.3 * (flat[:, 0] ** 2 - 1.0)
    log_density = -0.5 * flat.square().sum(1) - 0.5 * (1.0 + 0.36 * flat[:, 0] ** 2).log()
    return lifted + noise * torch.randn(count, size, generator=generator, dtype=torch.float64), log_density


@pytest.fixture(scope="module")
def fitted() -> ManifoldDensity:
    return ManifoldDensity.fit(sheet(4000, noise=0.05, seed=0)[0], dimension=2, k=100)


def test_noise_across_does_not_disturb_the_ranking_on_the_manifold(fitted: ManifoldDensity) -> None:
    z, truth = sheet(1000, noise=0.05, seed=1)
    along, both = fitted.along.log_density(z), fitted.log_density(z)
    assert spearman(both, truth) > spearman(along, truth) - 0.01
    assert spearman(both, truth) > 0.95
    assert (both < along).double().mean() < 0.06


def test_samples_beside_the_manifold_are_found_where_neighbours_do_not_find_them(fitted: ManifoldDensity) -> None:
    typical = sheet(1000, noise=0.05, seed=1)[0]
    beside = 0.3 * typical  # where the sheet is dense
    beside[:, 3] += 0.3
    by_both, by_neighbours = (
        auroc(density.log_density(typical), density.log_density(beside)) for density in (fitted, fitted.along)
    )
    assert by_both > 0.97
    assert by_neighbours < 0.85


def test_the_density_falls_with_the_distance_from_the_manifold(fitted: ManifoldDensity) -> None:
    z = torch.zeros(20, 8, dtype=torch.float64)
    z[:, 5] = torch.linspace(0.3, 3.0, 20)
    assert (fitted.log_density(z).diff() < 0).all()
    far, farther = fitted.log_across(torch.stack([1e4 * z[0], 2e4 * z[0]]))  # with the same neighbours
    assert float(farther - far) == pytest.approx(math.log(2.0), abs=1e-2)


@pytest.mark.parametrize("size", [5, 70])  # fewer and more coordinates than neighbours
def test_the_formula_by_dense_matrices(size: int) -> None:
    reference, _ = sheet(400, noise=0.1, seed=2, size=size)
    density = ManifoldDensity.fit(reference, dimension=2)
    z = sheet(20, noise=0.2, seed=3, size=size)[0]
    points, k = reference @ density.whitener.T, density.neighbours
    expected = []
    for row in z:
        near = points[(reference - row).norm(dim=1).argsort()[:k]]
        covariance = torch.cov(near.T)
        axes = torch.linalg.eigh(covariance).eigenvectors[:, :-2]
        across = axes.T @ ((1.0 - SHARED) * covariance + SHARED * torch.eye(len(covariance))) @ axes
        offset = axes.T @ (density.whitener @ row - near.mean(0))
        expected.append(offset @ torch.linalg.solve(across, offset))
    assert torch.allclose(density.log_across(z), 0.5 * torch.stack(expected).log())
    beyond = (0.5 * torch.stack(expected).log() - density.log_start).clamp_min(0.0)
    assert torch.allclose(density.log_density(z), density.along.log_density(z) - 0.5 * (beyond / STEP) ** 2)


def test_the_tail_starts_at_the_99th_percentile_of_chance(fitted: ManifoldDensity) -> None:
    reference = fitted.along.reference
    own = torch.randperm(4000, generator=torch.Generator().manual_seed(0))[:1000]
    usual = fitted.log_across(reference[own], own=own).median()
    assert fitted.log_start - float(usual) == pytest.approx(0.5 * math.log(chi2.ppf(0.99, 6) / chi2.ppf(0.5, 6)))


def test_neighbourhoods_have_the_mean_covariance_one_across(fitted: ManifoldDensity) -> None:
    reference = fitted.along.reference
    own = torch.randperm(4000, generator=torch.Generator().manual_seed(0))[:1000]
    distances = torch.cdist(reference[own], reference)
    distances[torch.arange(1000), own] = torch.inf
    near = reference[distances.topk(fitted.neighbours, largest=False).indices]
    near = near - near.mean(1, keepdim=True)
    values, axes = torch.linalg.eigh(near.mT @ near / (fitted.neighbours - 1))
    values = torch.minimum(values, values[:, [-3]])  # the two tangent directions vary no more than the third
    mean = ((axes * values[:, None]) @ axes.mT).mean(0)
    assert torch.allclose(fitted.whitener @ mean @ fitted.whitener.T, torch.eye(8, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("z", [torch.randn(300, 2), torch.randn(300, 1)])
def test_without_a_direction_across_it_is_the_density_by_neighbours(z: Tensor) -> None:
    density = ManifoldDensity.fit(z, dimension=z.shape[1])
    assert math.isinf(density.log_start)
    by_neighbours = NeighbourDensity.fit(z, dimension=z.shape[1], k=density.along.k)
    assert torch.equal(density.log_density(100.0 * z), by_neighbours.log_density(100.0 * z))


@given(seed=st.integers(0, 100), scale=st.floats(1e-3, 1e3), shift=st.floats(-10.0, 10.0))
@settings(max_examples=10, deadline=None)
def test_rotation_shift_and_scale_add_a_constant(seed: int, scale: float, shift: float) -> None:
    reference, z = sheet(300, noise=0.1, seed=seed)[0], sheet(50, noise=0.3, seed=seed + 1)[0]
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)).double()).Q
    plain, moved = (
        ManifoldDensity.fit(change(reference), dimension=2).log_density(change(z))
        for change in (lambda z: z, lambda z: scale * (z @ rotation.T + shift))
    )
    assert torch.allclose(plain, moved + 2.0 * math.log(scale), atol=1e-5)


def test_a_coordinate_that_is_always_equal_changes_nothing() -> None:
    reference, z = sheet(300, noise=0.1, seed=0)[0], sheet(50, noise=0.3, seed=1)[0]
    wider = [torch.cat([part, torch.ones(len(part), 1)], dim=1) for part in (reference, z)]
    plain = ManifoldDensity.fit(reference, dimension=2).log_density(z)
    assert torch.allclose(ManifoldDensity.fit(wider[0], dimension=2).log_density(wider[1]), plain)


def test_each_reference_embedding_by_the_others() -> None:
    reference = sheet(200, noise=0.1, seed=0)[0]
    density = ManifoldDensity.fit(reference, dimension=2)
    found = density.leave_one_out()
    for index in (0, 50, 199):
        without = torch.cat([reference[:index], reference[index + 1 :]])
        other = replace(density, along=replace(density.along, reference=without))
        assert torch.allclose(found[index], other.log_density(reference[index][None]), atol=1e-9)


def test_copies_and_values_that_are_not_finite() -> None:
    reference = sheet(300, noise=0.1, seed=0)[0].repeat(60, 1)  # more copies than neighbours
    z = reference[:5].clone()
    z[1, 0], z[2, 0] = torch.nan, torch.inf
    assert torch.isnan(ManifoldDensity.fit(reference, dimension=2).log_density(z)).tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("copies", [3, 4, 5])
def test_a_few_equal_embeddings_do_not_make_others_improbable(copies: int) -> None:
    z = torch.randn(30, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = torch.cat([z, z[:1].expand(copies, -1)])
    found = ManifoldDensity.fit(both, dimension=5)
    assert (
        float(found.leave_one_out().min()) > float(ManifoldDensity.fit(z, dimension=5).leave_one_out().min()) - 1000.0
    )


def test_few_embeddings_are_enough() -> None:
    density = ManifoldDensity.fit(torch.randn(12, 4), dimension=2)
    assert density.neighbours == 11
    assert torch.isfinite(density.log_density(torch.randn(3, 4))).all()
    with pytest.raises(ValueError, match="at least 2 finite embeddings"):
        ManifoldDensity.fit(torch.randn(1, 4), dimension=2)
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 11"):
        ManifoldDensity.fit(torch.randn(12, 4), dimension=2, k=12)


def test_to_moves_what_it_holds() -> None:
    density = ManifoldDensity.fit(torch.randn(50, 4), dimension=2).to("meta")
    assert density.whitener.is_meta
    assert density.along.reference.is_meta
