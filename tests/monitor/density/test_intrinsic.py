"""The intrinsic dimension of clouds whose dimension is known, against scikit-learn's neighbours and against draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.datasets import make_swiss_roll
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from jepa_monitor import intrinsic_dimension
from jepa_monitor.density.intrinsic import gaussian_inverse
from tests.monitor.density.helpers import embed_isometrically, on_sphere


def swiss_roll(n: int) -> Tensor:
    return torch.from_numpy(make_swiss_roll(n, random_state=0)[0])


CLOUDS = {
    "line": (1, lambda n: torch.randn(n, 1)),
    "Gaussian 2": (2, lambda n: torch.randn(n, 2)),
    "Gaussian 8": (8, lambda n: torch.randn(n, 8)),
    "Gaussian 16": (16, lambda n: torch.randn(n, 16)),
    "Gaussian 32": (32, lambda n: torch.randn(n, 32)),
    "sphere 2": (2, lambda n: on_sphere(n, 2)),
    "sphere 4": (4, lambda n: on_sphere(n, 4)),
    "sphere 16": (16, lambda n: on_sphere(n, 16)),
    "Swiss roll": (2, swiss_roll),
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("size", [0, 256])
def test_known_dimensions_are_found(name: str, size: int) -> None:
    """Spheres, Gaussians and a rolled sheet in as few coordinates as they need, and in 256."""
    dimension, draw = CLOUDS[name]
    found = intrinsic_dimension(embed_isometrically(draw(2000), size))
    edges = 0.05 if name == "Swiss roll" else 0.0  # beyond which a neighbourhood is cut off
    assert found.estimate == pytest.approx(dimension, rel=0.05 + edges)
    assert found.rank == dimension
    assert found.low < found.estimate < found.high or found.estimate == found.high == max(size, dimension)
    assert found.high - found.low < 0.04 * dimension


@pytest.mark.parametrize(("name", "noise", "most"), [("Gaussian 8", 0.02, 0.1), ("Swiss roll", 0.1, 0.1)])
def test_noise_below_the_neighbourhood_hardly_counts(name: str, noise: float, most: float) -> None:
    """It has all 16 dimensions, and at the scale of ten neighbours of many samples it shows."""
    dimension, draw = CLOUDS[name]
    cloud = embed_isometrically(draw(8000), 16)
    noisy = cloud + noise * torch.randn(cloud.shape)
    assert intrinsic_dimension(noisy).estimate == pytest.approx(dimension, rel=most)
    assert intrinsic_dimension(noisy, k=10).estimate > intrinsic_dimension(cloud, k=10).estimate


def test_the_answer_does_not_depend_on_the_size_of_the_cloud() -> None:
    cloud = embed_isometrically(torch.randn(8000, 3), 12)
    cloud += 0.05 * torch.randn(cloud.shape)
    estimates = [intrinsic_dimension(cloud[:n]).estimate for n in (1000, 8000)]
    assert estimates[0] == pytest.approx(estimates[1], rel=0.03)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_the_likelihood_is_that_of_scikit_learns_neighbours(k: int) -> None:
    z = torch.randn(200, 5).double() @ torch.randn(5, 9).double()
    distances = NearestNeighbors(n_neighbors=k + 1).fit(z.numpy()).kneighbors(z.numpy())[0][:, 1:]
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    expected = 1.0 / (logs.sum(1) / (k - 1)).mean()
    assert intrinsic_dimension(z, k=k, calibrated=False).estimate == pytest.approx(expected, rel=1e-12)


def test_the_interval_is_scipys_bootstrap_at_95_percent() -> None:
    z, k = torch.randn(800, 4) @ torch.randn(4, 9), 20
    distances = NearestNeighbors(n_neighbors=k + 1).fit(z.numpy()).kneighbors(z.numpy())[0][:, 1:]
    inverses = np.log(distances[:, -1:] / distances).sum(1) / (k - 1)
    means = bootstrap((inverses,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    found = intrinsic_dimension(z, k=k, calibrated=False)
    width = 1 / means.low - 1 / means.high
    assert found.low == pytest.approx(1 / means.high, abs=0.06 * width)  # at 90 % each end is nearer by 0.08
    assert found.high == pytest.approx(1 / means.low, abs=0.06 * width)


@pytest.mark.parametrize(("dimension", "k"), [(1, 5), (2, 100), (8, 25), (30, 4)])
def test_the_mean_of_a_gaussian_is_that_of_draws(dimension: int, k: int) -> None:
    """Draws of 500 samples, with distances by torch.cdist."""
    means = []
    for _ in range(10):
        z = torch.randn(500, dimension).double()
        nearest = torch.cdist(z, z).sort(1).values[:, 1 : k + 1]
        means.append((nearest[:, -1:] / nearest).log().sum(1).mean().div(k - 1))
    error = float(torch.stack(means).std()) / math.sqrt(10)
    assert gaussian_inverse(dimension, 499, k) == pytest.approx(float(torch.stack(means).mean()), abs=4 * error)
    assert error * dimension < 0.02


@given(
    rotation=st.integers(0, 100), shift=st.floats(-100, 100), log_scale=st.floats(-5, 5), dimension=st.integers(1, 6)
)
@settings(max_examples=15, deadline=None)
def test_rotation_shift_scale_and_order_change_nothing(
    rotation: int, shift: float, log_scale: float, dimension: int
) -> None:
    generator = torch.Generator().manual_seed(rotation)
    z = (
        torch.randn(150, dimension, generator=generator).double()
        @ torch.randn(dimension, 6, generator=generator).double()
    )
    orthogonal = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    found = intrinsic_dimension(z)
    assert intrinsic_dimension(z[torch.randperm(150, generator=generator)]) == found
    moved = math.exp(log_scale) * z @ orthogonal + shift
    assert intrinsic_dimension(moved).estimate == pytest.approx(found.estimate, rel=1e-6)


def test_copies_count_once_and_what_is_not_finite_not_at_all() -> None:
    z = torch.randn(300, 4)
    found = intrinsic_dimension(z)
    assert intrinsic_dimension(torch.cat([z, z, z[:50], torch.full((3, 4), torch.nan)])) == found
    nearly = torch.cat([z, z[:60] * (1.0 + 1e-8)]).double()
    assert intrinsic_dimension(nearly).estimate == pytest.approx(found.estimate, rel=0.02)
    assert intrinsic_dimension(z.bfloat16()).estimate == pytest.approx(found.estimate, rel=0.02)


def test_a_cloud_has_no_more_dimensions_than_coordinates() -> None:
    corners = torch.cat([torch.eye(20), -torch.eye(20)])  # the nearest are all as far
    assert intrinsic_dimension(corners, k=4).estimate == 20.0
    assert intrinsic_dimension(torch.rand(500, 1), calibrated=False).high <= 1.0


def test_large_clouds_are_drawn_from_and_the_global_generator_is_left_alone() -> None:
    z = embed_isometrically(torch.randn(40_000, 3), 4)
    state = torch.get_rng_state()
    found = intrinsic_dimension(z)
    assert torch.equal(state, torch.get_rng_state())
    assert found.estimate == pytest.approx(3.0, rel=0.03)
    assert intrinsic_dimension(z.flip(0)) == found
    assert intrinsic_dimension(z, seed=1) != found


def test_clouds_without_a_dimension_are_refused() -> None:
    z = torch.randn(30, 3)
    with pytest.raises(ValueError, match="collapsed to a point"):
        intrinsic_dimension(torch.ones(30, 3))
    with pytest.raises(ValueError, match=r"11 different finite embeddings .* from 10 neighbours: use at least 12"):
        intrinsic_dimension(z[:11])
    with pytest.raises(ValueError, match="0 different finite"):
        intrinsic_dimension(torch.full((9, 3), torch.nan))
    with pytest.raises(ValueError, match="k must be a whole number of at least 2 or None, got 1"):
        intrinsic_dimension(z, k=1)
    with pytest.raises(ValueError, match=r"must be \(N, K\)"):
        intrinsic_dimension(z[:, 0])
    with pytest.raises(ValueError, match="no dimension"):
        intrinsic_dimension(torch.randn(2, 3).double().repeat(20, 1) * (1.0 + 1e-12 * torch.rand(40, 1).double()), k=10)


def test_points_span_no_more_dimensions_than_one_less_than_their_number() -> None:
    assert intrinsic_dimension(torch.randn(12, 256)).high <= 11.0


def test_one_embedding_is_not_called_a_collapse() -> None:
    with pytest.raises(ValueError, match="1 different finite embeddings cannot give the intrinsic dimension"):
        intrinsic_dimension(torch.randn(1, 4))
