"""The reference of embeddings: its coordinates, rank and density, what is fitted anew, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference
from jepa_monitor.density.densities import GaussianDensity, NeighbourDensity
from jepa_monitor.density.intrinsic import intrinsic_dimension
from jepa_monitor.density.manifold import ManifoldDensity
from jepa_monitor.density.mixtures import MixtureDensity
from tests.monitor.density.helpers import ENCODERS


def plane(count: int = 400, *, size: int = 5, seed: int = 0) -> Tensor:
    """Samples of a Gaussian in a plane of (``size``,) coordinates: (N, ``size``)."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(size, 2, generator=generator, dtype=torch.float64)).Q.T
    return torch.randn(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 0.5]) @ axes + 1.0


def test_the_default_is_of_the_embeddings_own_coordinates_and_dimension() -> None:
    encode, x = ENCODERS["tall"](), torch.randn(500, 10)
    reference = EmbeddingReference.measure(encode, x)
    z = encode(x).detach().double()
    assert reference.gaussian is None
    torch.testing.assert_close(reference.coordinates(z), z)
    assert reference.dimension == intrinsic_dimension(z)
    assert reference.rank == reference.dimension.rank
    fitted = ManifoldDensity.fit(z, dimension=reference.rank)
    torch.testing.assert_close(reference.log_density(z[:9] + 0.1), fitted.log_density(z[:9] + 0.1))


def test_the_rank_is_that_of_the_manifold_and_not_of_the_space() -> None:
    assert EmbeddingReference.fit(plane()).rank == 2
    assert EmbeddingReference.fit(plane(size=2)).rank == 2
    given = EmbeddingReference.fit(plane(), rank=5)
    assert (given.rank, given.dimension) == (5, None)


@pytest.mark.parametrize("whiten", [None, True, False])
def test_the_rank_is_the_densitys_own_unless_it_is_given(whiten: bool | None) -> None:
    cloud, flat = torch.randn(400, 3).double() * torch.tensor([1.0, 1.0, 0.01]), plane(size=3)
    for name in ("gaussian", "mixture"):
        of_cloud, of_flat = (EmbeddingReference.fit(z, density=name, whiten=whiten) for z in (cloud, flat))
        assert (of_cloud.rank, of_flat.rank) == (3, 2)
        assert of_cloud.refit(density="neighbours").rank == intrinsic_dimension(cloud).rank
        assert of_cloud.refit(density="neighbours").refit(density=name).rank == 3
        given = EmbeddingReference.fit(cloud, density=name, whiten=whiten, rank=1)
        assert given.rank == given.refit(density="neighbours").rank == given.refit(rank=1).rank == 1
    for name in ("neighbours", "manifold"):
        assert EmbeddingReference.fit(flat, density=name).rank == 2
        assert EmbeddingReference.fit(flat, density=name).refit(density="gaussian").rank == 2
    own = NeighbourDensity.fit(cloud, dimension=1.4)
    assert EmbeddingReference.fit(cloud, density=own).rank == own.volume_rank == 1


@pytest.mark.parametrize("whiten", [None, True, False])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gaussian", GaussianDensity),
        ("neighbours", NeighbourDensity),
        ("manifold", ManifoldDensity),
        ("mixture", MixtureDensity),
    ],
)
def test_each_density_is_chosen_by_name(name: Any, kind: type, whiten: bool | None) -> None:
    z = plane(size=2)
    reference = EmbeddingReference.fit(z, density=name, whiten=whiten)
    assert isinstance(reference.density, kind)
    coordinates = reference.coordinates(z)
    is_white = name == "gaussian" if whiten is None else whiten
    assert torch.allclose(torch.cov(coordinates.T), torch.eye(2).double()) == is_white
    torch.testing.assert_close(reference.log_density(coordinates), reference.density.log_density(coordinates))


def test_the_gaussian_one_is_the_fitted_gaussian() -> None:
    z = torch.randn(300, 3).double() @ torch.randn(3, 3).double() + 2.0
    reference = EmbeddingReference.fit(z, density="gaussian")
    fitted = torch.distributions.MultivariateNormal(z.mean(0), torch.cov(z.T)).log_prob(z)
    difference = reference.log_density(reference.coordinates(z)) - fitted
    torch.testing.assert_close(difference, difference[:1].expand(300))  # up to the constant of the coordinates


def test_a_density_of_ones_own_is_taken_as_it_is() -> None:
    own = GaussianDensity.fit(plane())
    reference = EmbeddingReference.fit(plane(), density=own)
    assert reference.density is own
    assert reference.gaussian is None
    assert reference.refit(rank=1).density is own


def test_another_density_or_rank_is_fitted_to_the_same_embeddings() -> None:
    z = plane()
    reference = EmbeddingReference.fit(z, density="neighbours")
    assert reference.refit(density="gaussian").rank == reference.rank
    for refitted, expected in [
        (reference.refit(density="gaussian"), EmbeddingReference.fit(z, density="gaussian", rank=2)),
        (reference.refit(rank=3), EmbeddingReference.fit(z, density="neighbours", rank=3)),
        (
            EmbeddingReference.fit(z, whiten=True, density="neighbours").refit(rank=1),
            EmbeddingReference.fit(z, whiten=True, density="neighbours", rank=1),
        ),
    ]:
        found = refitted.log_density(refitted.coordinates(z[:20] + 0.1))
        torch.testing.assert_close(found, expected.log_density(expected.coordinates(z[:20] + 0.1)))
    with pytest.raises(ValueError, match="has no embeddings"):
        EmbeddingReference(reference.density, 2).refit(density="gaussian")


def test_spectra_are_those_of_the_coordinates() -> None:
    z, jacobian = plane(size=3), torch.randn(7, 3, 8).double()
    gram = jacobian @ jacobian.mT
    own = EmbeddingReference.fit(z, rank=2)
    torch.testing.assert_close(own.log_singular_values(gram), torch.linalg.svdvals(jacobian).log())
    white = EmbeddingReference.fit(z, rank=2, whiten=True)
    assert white.gaussian is not None
    of_white = torch.linalg.svdvals(white.gaussian.whitener @ jacobian).log()
    torch.testing.assert_close(white.log_singular_values(gram), of_white)


def test_it_moves_to_a_device_whole() -> None:
    reference = EmbeddingReference.fit(plane(), density="gaussian")
    moved = reference.to(torch.device("cpu"))
    assert (moved.rank, moved.dimension) == (reference.rank, reference.dimension)
    z = plane(9, seed=1)
    assert torch.equal(moved.log_density(moved.coordinates(z)), reference.log_density(reference.coordinates(z)))


def test_it_refuses_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(N, K\)"):
        EmbeddingReference.fit(torch.randn(9))
    with pytest.raises(ValueError, match="collapsed to a point"):
        EmbeddingReference.fit(torch.ones(90, 4))
    with pytest.raises(ValueError, match="collapsed to a point"):  # rounding of float32 is no spread
        EmbeddingReference.fit(torch.ones(90, 4) + 1e-7 * torch.randn(90, 4))
    with pytest.raises(ValueError, match="at least 2 finite embeddings, got 0 of 90"):
        EmbeddingReference.fit(torch.full((90, 4), torch.nan))
    with pytest.raises(ValueError, match=r"density must be auto, gaussian, .* or an EmbeddingDensity, got 'normal'"):
        EmbeddingReference.fit(plane(), density="normal")  # type: ignore[arg-type]  # what is tried
    for rank in (0, 1.5, True, None, "widest"):
        with pytest.raises(ValueError, match=f"rank must be a whole number of at least 1 or 'auto', got {rank!r}"):
            EmbeddingReference.fit(plane(), rank=rank)  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 5, got 6"):
        EmbeddingReference.fit(plane(), rank=6)
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 2, got 3"):  # of white coordinates
        EmbeddingReference.fit(plane(), density="gaussian", rank=3)
    for density in (None, 3, GaussianDensity, lambda z: z):
        with pytest.raises(TypeError, match=r"density must be auto, .*, or an object such as GaussianDensity.fit\(z\)"):
            EmbeddingReference.fit(plane(), density=density)  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="the density is one of 3 coordinates, and the embeddings have 5"):
        EmbeddingReference.fit(plane(), density=GaussianDensity.fit(plane(size=3)))
    with pytest.raises(ValueError, match="whiten must be True, False or None, got 'yes'"):
        EmbeddingReference.fit(plane(), whiten="yes")  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="4 finite embeddings cannot give the covariance of 4 coordinates"):
        EmbeddingReference.fit(torch.randn(4, 4), density="gaussian", rank=2)


def test_it_is_measured_by_forward_passes_alone() -> None:
    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # torch's hint says *args
            raise AssertionError

    layer = nn.Linear(6, 3)
    x = torch.randn(300, 6)
    measured = EmbeddingReference.measure(lambda inputs: layer(Counted.apply(inputs)), x, chunk=64)
    assert measured.embeddings is not None
    torch.testing.assert_close(measured.embeddings.float(), layer(x))
