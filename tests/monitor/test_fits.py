"""The densities of one measurement: what they are fitted to, and the probe's own log density."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepa_monitor import EmbeddingReference, GaussianDensity
from jepa_monitor.density.embedding import DensityName
from jepa_monitor.fits import Fits

NAMES: tuple[DensityName, ...] = ("gaussian", "mixture", "neighbours", "manifold")


def cloud(count: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fit(z: Tensor, z_reference: Tensor | None = None, *, rank: int | None = None, most: int = 9) -> Fits:
    return Fits.of(z, z_reference, density="auto", rank=rank, most_directions=most)


def test_the_reference_is_what_densities_are_fitted_to() -> None:
    z, z_reference = cloud(40), cloud(200, seed=1)
    fits, expected = fit(z, z_reference), EmbeddingReference.fit(z_reference)
    assert (fits.size, fits.rank, fits.dimension) == (200, expected.rank, expected.dimension)
    torch.testing.assert_close(fits.of_probe, expected.log_density(z))
    spectra = torch.tensor([2.0, 1.0, -5.0], dtype=torch.float64).expand(10, 3)
    by_gaussian = GaussianDensity.fit(z_reference).log_density(z[:10])
    torch.testing.assert_close(fits.gaussian_log_density(spectra, z), by_gaussian - 2.0)  # with all directions


@pytest.mark.parametrize("z_reference", [None, torch.ones(50, 3, dtype=torch.float64)])
def test_without_one_that_varies_each_sample_is_scored_by_the_others(z_reference: Tensor | None) -> None:
    z = cloud(40)
    fits = fit(z, z_reference, rank=2)
    assert fits.size == 0
    alone = EmbeddingReference.fit(torch.cat([z[:7], z[8:]]), rank=2)
    torch.testing.assert_close(fits.of_probe[7:8], alone.log_density(z[7:8]))


def test_no_rank_exceeds_the_number_of_input_dimensions() -> None:
    assert fit(cloud(40), rank=9).rank == 3
    assert fit(cloud(40), rank=9, most=2).rank == 2


def test_the_rank_is_the_densitys_own() -> None:
    flat = torch.cat([cloud(200)[:, :2], cloud(200)[:, :1].square()], 1)  # a surface
    ranks = {name: Fits.of(flat, None, density=name, rank=None, most_directions=9).rank for name in NAMES}
    assert ranks == {"gaussian": 3, "mixture": 3, "neighbours": 2, "manifold": 2}


def test_a_collapse_leaves_nothing() -> None:
    fits = fit(torch.ones(40, 3, dtype=torch.float64))
    assert fits.problem == "all embeddings are equal: the encoder has collapsed to a point."
    assert (fits.rank, fits.reference, fits.gaussian, fits.dimension) == (0, None, None, None)
    assert torch.isnan(fits.of_probe).all()
    assert torch.isnan(fits.gaussian_log_density(torch.zeros(10, 3), cloud(40))).all()
