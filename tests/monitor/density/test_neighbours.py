"""The blocked search against all distances, scikit-learn, and copies that are each other's neighbours."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from jepa_monitor.density import knn_distance, nearest, neighbours


@pytest.mark.parametrize("offset", [0.0, 1e7])
@pytest.mark.parametrize("block", [1, 70, 2**23])
def test_nearest_is_brute_force(offset: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    z, reference = torch.randn(20, 40).double() + offset, torch.randn(50, 40).double() + offset
    expected = torch.linalg.vector_norm(z[:, None] - reference[None], dim=2).sort(1)
    distances, indices = nearest(z, reference, 10)
    torch.testing.assert_close(distances, expected.values[:, :10], rtol=1e-13, atol=0.0)
    assert torch.equal(indices, expected.indices[:, :10])
    torch.testing.assert_close(knn_distance(z, reference), expected.values[:, 9], rtol=1e-13, atol=0.0)
    torch.testing.assert_close(knn_distance(z, reference, k=99), expected.values[:, -1], rtol=1e-13, atol=0.0)


def test_nearest_is_scikit_learns() -> None:
    z, reference = torch.randn(20, 4).double(), torch.randn(50, 4).double()
    distances, indices = NearestNeighbors(n_neighbors=3).fit(reference.numpy()).kneighbors(z.numpy())
    found = nearest(z, reference, 3)
    torch.testing.assert_close(found[0], torch.from_numpy(distances), rtol=1e-12, atol=0.0)
    assert torch.equal(found[1], torch.from_numpy(indices))
    torch.testing.assert_close(
        knn_distance(z, reference, k=3), torch.from_numpy(distances[:, -1]), rtol=1e-12, atol=0.0
    )


@pytest.mark.parametrize("block", [1, 70, 2**23])
def test_a_point_is_not_its_own_neighbour_but_its_copy_is(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    points = torch.randn(30, 5)
    points[7] = points[21]
    own = torch.arange(30)
    distances, indices = nearest(points, points, 29, own=own)
    assert not (indices == own[:, None]).any()
    assert indices[[7, 21], 0].tolist() == [21, 7]
    assert distances[[7, 21], 0].tolist() == [0.0, 0.0]
    subset = torch.tensor([21, 3])
    assert torch.equal(nearest(points[subset], points, 4, own=subset)[1], indices[subset, :4])


def test_a_query_that_is_not_finite_keeps_it_to_itself() -> None:
    z, reference = torch.randn(3, 4), torch.randn(9, 4)
    clean = nearest(z, reference, 2)[0]
    z[1, 2] = torch.inf
    distances = nearest(z, reference, 2)[0]
    assert not torch.isfinite(distances[1]).any()
    assert torch.equal(distances[[0, 2]], clean[[0, 2]])


def test_neighbours_that_are_not_there_are_refused() -> None:
    points = torch.randn(5, 3)
    assert nearest(points[:0], points, 5)[0].shape == nearest(points[:0], points, 5)[1].shape == (0, 5)
    for k, own in ((0, None), (6, None), (5, torch.arange(5))):
        with pytest.raises(ValueError, match=f"k must be a whole number from 1 to {5 if own is None else 4}"):
            nearest(points, points, k, own=own)
    points[0, 0] = torch.nan
    with pytest.raises(ValueError, match="points must be finite"):
        nearest(points, points, 1)


def test_knn_distance_without_neighbours_is_nan() -> None:
    z = torch.randn(5, 3)
    assert knn_distance(z, torch.full((4, 3), torch.nan)).isnan().all()
    assert knn_distance(z, torch.empty(0, 3)).isnan().all()
    assert knn_distance(torch.full((1, 3), torch.nan), z).isnan().all()
    assert knn_distance(z[:0], z).shape == (0,)
    with pytest.raises(ValueError, match="k must be"):
        knn_distance(z, z, k=0)
