"""Densities of embeddings against closed forms: Gaussians, a mixture, a sphere in more dimensions than it has."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.special import digamma
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from jepa_monitor import EmbeddingDensity, GaussianDensity, ManifoldDensity, NeighbourDensity
from tests.monitor.density.helpers import embed_isometrically, on_sphere

DENSITIES = {
    "gaussian": GaussianDensity.fit,
    "neighbours": lambda z: NeighbourDensity.fit(z, dimension=3),
}
every_density = pytest.mark.parametrize("name", DENSITIES)


def test_the_gaussian_is_scipys() -> None:
    z, held_out = (torch.randn(550, 4).double() @ torch.randn(4, 4).double() + 3.0).split([500, 50])
    oracle = multivariate_normal(z.mean(0).numpy(), torch.cov(z.T).numpy()).logpdf(held_out.numpy())
    fitted = GaussianDensity.fit(z)
    torch.testing.assert_close(fitted.log_density(held_out), torch.from_numpy(oracle), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cov(fitted.whiten(z).T), torch.eye(4).double())


def test_the_gaussian_of_a_flat_cloud_is_that_on_the_flat() -> None:
    z = torch.randn(400, 2).double() * torch.tensor([1.0, 3.0])
    embedded = embed_isometrically(z, 5)
    flat, plane = GaussianDensity.fit(embedded), GaussianDensity.fit(z)
    assert flat.whitener.shape == (2, 5)
    torch.testing.assert_close(flat.log_density(embedded), plane.log_density(z))


@pytest.mark.parametrize("k", [1, 7])
def test_neighbours_are_the_formula_on_scikit_learns_distances(k: int) -> None:
    z, held_out = torch.randn(90, 4).double(), torch.randn(20, 4).double()
    search = NearestNeighbors(n_neighbors=k + 1).fit(z.numpy())
    fitted = NeighbourDensity.fit(z, dimension=2.5, k=k)
    constant = digamma(k) - 1.25 * math.log(math.pi) + math.lgamma(2.25)
    for found, distances, others in (
        (fitted.log_density(held_out), search.kneighbors(held_out.numpy())[0][:, k - 1], 90),
        (fitted.leave_one_out(), search.kneighbors(z.numpy())[0][:, k], 89),
    ):
        expected = constant - math.log(others) - 2.5 * torch.from_numpy(distances).log()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


MIXTURE = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7]).double()),
    MultivariateNormal(torch.tensor([[0.0, 0.0], [3.0, 1.0]]).double(), torch.eye(2).double() * 0.5),
)


def uniform_on_sphere(n: int) -> tuple[Tensor, Tensor]:
    """3-dimensional sphere in 20 coordinates, whose area is 2 pi^2."""
    return embed_isometrically(on_sphere(n, 3), 20), torch.full((n,), -math.log(2.0 * math.pi**2)).double()


def from_mixture(n: int) -> tuple[Tensor, Tensor]:
    z = MIXTURE.sample((n,))
    return z, MIXTURE.log_prob(z)


def from_gaussian(n: int) -> tuple[Tensor, Tensor]:
    z = torch.randn(n, 3).double()
    return embed_isometrically(z, 10), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)


@pytest.mark.parametrize("kind", [NeighbourDensity, ManifoldDensity])
@pytest.mark.parametrize(("draw", "dimension"), [(uniform_on_sphere, 3), (from_mixture, 2), (from_gaussian, 3)])
def test_neighbours_and_the_manifold_are_consistent(
    draw: Callable[[int], tuple[Tensor, Tensor]], dimension: int, kind: type[NeighbourDensity | ManifoldDensity]
) -> None:
    """The mean log density, which is minus the entropy, is right to 2 %; the error of a single one falls."""
    errors = []
    for n in (500, 8000):
        z, truth = draw(n + 500)
        fitted = kind.fit(z[500:], dimension=dimension, k=round(math.sqrt(n)))
        found = fitted.log_density(z[:500])
        errors.append(float((found - truth[:500]).abs().mean()))
    assert float(found.mean()) == pytest.approx(float(truth[:500].mean()), rel=0.02)
    assert float(fitted.leave_one_out().mean()) == pytest.approx(float(truth.mean()), rel=0.02)
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < 0.16


def test_leave_one_out_is_the_density_by_the_others() -> None:
    z = torch.randn(60, 3)
    expected = [
        NeighbourDensity.fit(torch.cat([z[:i], z[i + 1 :]]), dimension=3, k=5).log_density(z[i : i + 1])
        for i in (0, 31)
    ]
    found = NeighbourDensity.fit(z, dimension=3, k=5).leave_one_out()
    torch.testing.assert_close(found[[0, 31]], torch.cat(expected), rtol=1e-12, atol=1e-12)


def test_what_is_not_given_is_found() -> None:
    z = embed_isometrically(torch.randn(900, 4), 12)
    fitted = NeighbourDensity.fit(z)
    assert (fitted.dimension, fitted.k) == (4.0, 22)
    assert [ManifoldDensity.fit(z[:n], dimension=4).along.k for n in (10, 300, 900)] == [9, 32, 32]
    assert ManifoldDensity.fit(torch.randn(5000, 2), dimension=2).along.k == 40


def test_copies_have_a_finite_density() -> None:
    z = torch.cat([torch.randn(50, 2), torch.zeros(30, 2)])
    fitted = NeighbourDensity.fit(z, dimension=2, k=10)
    density = fitted.log_density(torch.zeros(1, 2))
    assert torch.isfinite(density).all()
    assert density > fitted.log_density(z[:50]).max()


@every_density
def test_a_shift_changes_nothing_and_a_scale_adds_a_constant(name: str) -> None:
    z, held_out = torch.randn(300, 3).double(), torch.randn(20, 3).double()
    density = DENSITIES[name](z).log_density(held_out)
    moved = DENSITIES[name](2.0 * z + 5.0).log_density(2.0 * held_out + 5.0)
    torch.testing.assert_close(moved, density - 3 * math.log(2.0), rtol=1e-9, atol=1e-9)


@every_density
def test_what_is_not_finite_stays_alone(name: str) -> None:
    z, held_out = torch.randn(300, 3), torch.randn(4, 3)
    clean = DENSITIES[name](z).log_density(held_out)
    held_out[1, 0] = torch.inf
    fitted = DENSITIES[name](torch.cat([z, torch.full((5, 3), torch.nan)]))
    density = fitted.log_density(held_out)
    assert density.dtype == torch.float64
    assert density.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(density[[0, 2, 3]], clean[[0, 2, 3]])
    assert fitted.log_density(held_out[:0]).shape == (0,)


@every_density
def test_densities_move_and_are_short_to_read(name: str) -> None:
    fitted: EmbeddingDensity = DENSITIES[name](torch.randn(300, 3))
    moved = fitted.to("meta")
    assert type(moved) is type(fitted)
    assert {value.device.type for value in vars(moved).values() if isinstance(value, Tensor)} == {"meta"}
    assert len(repr(fitted)) < 200


@every_density
def test_clouds_without_a_density_are_refused(name: str) -> None:
    for cloud, message in (
        (torch.ones(30, 3), "collapsed to a point"),
        (torch.full((30, 3), torch.nan), "at least 2 finite embeddings, got 0 of 30"),
        (torch.randn(30), r"must be \(N, K\)"),
        (torch.randn(30, 3).to(torch.complex64), "not real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            DENSITIES[name](cloud)


@every_density
def test_embeddings_of_another_size_are_refused(name: str) -> None:
    fitted = DENSITIES[name](torch.randn(300, 3))
    for z in (torch.randn(5, 1), torch.randn(3)):  # both could be broadcast
        with pytest.raises(ValueError, match=r"embeddings must be \(N, 3\), got shape"):
            fitted.log_density(z)


def test_settings_out_of_range_are_refused() -> None:
    z = torch.randn(30, 3)
    for fit in (NeighbourDensity.fit, ManifoldDensity.fit):
        for k in (0, 30, 2.5):
            with pytest.raises(ValueError, match=f"k must be a whole number from 1 to 29, got {k}"):
                fit(z, dimension=3, k=k)  # type: ignore[arg-type]  # what is tried
        for dimension in (0.0, math.nan, -1, 3.5, True, "2"):
            with pytest.raises(ValueError, match="dimension must be a number above 0 and at most K = 3"):
                fit(z, dimension=dimension)  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="3 finite embeddings cannot give the covariance of 3 coordinates"):
        GaussianDensity.fit(z[:3])
