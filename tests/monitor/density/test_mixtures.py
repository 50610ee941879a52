"""Mixtures of Gaussians against scikit-learn's own scores, with the number of components that the data has."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from jepa_monitor import MixtureDensity
from tests.monitor.density.helpers import embed_isometrically

TWO = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7]).double()),
    MultivariateNormal(
        torch.tensor([[0.0, 0.0], [3.0, 1.0]]).double(),
        torch.tensor([[[1.0, 0.6], [0.6, 0.5]], [[0.2, 0.0], [0.0, 0.8]]]).double(),
    ),
)


@pytest.mark.parametrize(("components", "size"), [(1, 1), (3, 4)])
def test_scores_are_scikit_learns(components: int, size: int) -> None:
    z, held_out = torch.randn(450, size).double().split([400, 50])
    z, held_out = 5.0 + 0.1 * z, 5.0 + 0.1 * held_out
    scale = float(z.var(0).mean().sqrt())
    standardised = (z - z.mean(0)) / scale
    oracle = GaussianMixture(components, random_state=0).fit(standardised.numpy())
    expected = oracle.score_samples(((held_out - z.mean(0)) / scale).numpy()) - size * math.log(scale)
    found = MixtureDensity.fit(z, components=components).log_density(held_out)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_the_number_of_components_and_the_density_are_found() -> None:
    z, held_out = TWO.sample((4000,)), TWO.sample((1000,))
    fitted = MixtureDensity.fit(z)
    assert fitted.means.shape == (2, 2)
    error = fitted.log_density(held_out) - TWO.log_prob(held_out)
    assert float(error.abs().mean()) < 0.05
    assert float(error.mean()) == pytest.approx(0.0, abs=0.02 * float(TWO.log_prob(held_out).mean().abs()))


def test_a_flat_cloud_is_bounded_across_and_punishes_distance_from_it() -> None:
    cloud = embed_isometrically(TWO.sample((600,)), 6)
    fitted = MixtureDensity.fit(cloud, components=2)
    density = fitted.log_density(cloud)
    assert torch.isfinite(density).all()
    off = cloud + 0.1 * torch.randn(cloud.shape)
    assert fitted.log_density(off).max() < density.min()


def test_the_seed_decides_and_the_global_generators_are_left_alone() -> None:
    z = torch.randn(300, 3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, second = (MixtureDensity.fit(z, components=4, seed=3) for _ in range(2))
    assert torch.equal(first.log_density(z), second.log_density(z))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


def test_fewer_components_are_tried_where_there_are_few_embeddings() -> None:
    z = torch.cat([torch.randn(12, 5) + 20.0 * i for i in range(4)])
    assert len(MixtureDensity.fit(z).log_weights) <= 4
    with pytest.raises(ValueError, match="48 finite embeddings are too few for 8 full covariances of 5 coordinates"):
        MixtureDensity.fit(z, components=8)
    with pytest.raises(ValueError, match="use at least 10, or fewer components"):
        MixtureDensity.fit(z[:9])
    with pytest.raises(ValueError, match="components must be a whole number of at least 1 or None, got 0"):
        MixtureDensity.fit(z, components=0)


def test_what_is_not_finite_stays_alone_and_a_point_is_refused() -> None:
    z: Tensor = torch.cat([torch.randn(100, 2), torch.full((3, 2), torch.nan)])
    density = MixtureDensity.fit(z, components=1).log_density(z)
    assert density.isnan().tolist() == 100 * [False] + 3 * [True]
    with pytest.raises(ValueError, match="collapsed to a point"):
        MixtureDensity.fit(torch.ones(30, 3))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(ImportError, match="MixtureDensity needs scikit-learn: pip install scikit-learn"):
        MixtureDensity.fit(torch.randn(100, 2))
