"""The weighted vote against scikit-learn, and whitening against Mahalanobis distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from jepa_monitor.evaluation import weighted_knn, whiten
from jepa_monitor.evaluation.whitening import principal


def test_weighted_knn_is_scikit_learns() -> None:
    bank, queries = torch.randn(300, 6).double(), torch.randn(40, 6).double()
    labels = (bank[:, 0] > 0).long() + 2 * (bank[:, 1] > 0).long()
    mean = bank.mean(0)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1.0 - distances) / 0.07)

    oracle = KNeighborsClassifier(20, metric="cosine", weights=weights)
    expected = oracle.fit((bank - mean).numpy(), labels.numpy()).predict((queries - mean).numpy())
    assert weighted_knn(queries, bank, labels).tolist() == expected.tolist()


def test_a_shared_offset_changes_nothing() -> None:
    bank, queries, labels = torch.randn(100, 4), torch.randn(20, 4), torch.randint(3, (100,))
    assert torch.equal(weighted_knn(queries + 50.0, bank + 50.0, labels), weighted_knn(queries, bank, labels))


def test_a_bank_smaller_than_k_votes_as_a_whole() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    assert weighted_knn(bank, bank, torch.tensor([2, 0, 1])).tolist() == [2, 0, 1]


def test_whitening_is_mahalanobis_distance_of_the_bank() -> None:
    bank, queries = torch.randn(200, 3).double() @ torch.randn(3, 3).double() + 2.0, torch.randn(5, 3).double()
    white_queries, white_bank = whiten(queries, bank, ridge=0.0)
    torch.testing.assert_close(torch.cov(white_bank.T), torch.eye(3).double())
    difference = queries[0] - bank[0]
    mahalanobis = difference @ torch.linalg.inv(torch.cov(bank.T)) @ difference
    torch.testing.assert_close((white_queries[0] - white_bank[0]).square().sum(), mahalanobis)


def by_covariance(queries: Tensor, bank: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Whitening along all D axes of the covariance."""
    variances, axes = torch.linalg.eigh(torch.cov(bank.T))
    scaled = axes / (variances.clamp_min(0.0) + ridge * variances.mean()).sqrt()
    return (queries - bank.mean(0)) @ scaled, (bank - bank.mean(0)) @ scaled


@pytest.mark.parametrize("size", [10, 39, 40, 41])
def test_whitening_with_few_samples_is_the_same_without_a_covariance(size: int) -> None:
    bank, queries = torch.randn(size, 40).double() @ torch.randn(40, 40).double() + 3.0, torch.randn(60, 40).double()
    labels = (bank[:, 0] > 3.0).long() + 2 * (bank[:, 1] > 3.0).long()
    ours, expected = whiten(queries, bank), by_covariance(queries, bank)
    assert ours[0].shape == (60, min(size + 1, 40))
    assert ours[1].shape == (size, min(size + 1, 40))
    torch.testing.assert_close(torch.cdist(*ours), torch.cdist(*expected))
    torch.testing.assert_close(ours[0] @ ours[1].T, expected[0] @ expected[1].T)
    torch.testing.assert_close(ours[0].norm(dim=1), expected[0].norm(dim=1))
    # so do votes with a temperature, which cosines enter, that a query's length is part of
    for temperature in (0.07, 1.0):
        votes = [weighted_knn(*both, labels, k=5, temperature=temperature).tolist() for both in (ours, expected)]
        assert votes[0] == votes[1]


def test_few_samples_of_many_features_are_whitened_at_once() -> None:
    """A covariance of this width would not fit into memory."""
    bank, queries = torch.randn(6, 300_000), torch.randn(2, 300_000)
    assert whiten(queries, bank)[0].shape == (2, 7)
    assert principal(queries, bank, components=4)[0].shape == (2, 4)


def test_whitening_survives_dead_directions() -> None:
    bank = torch.cat([torch.randn(50, 2), torch.zeros(50, 1)], dim=1)
    white, _ = whiten(bank, bank)
    assert float(white.abs().max()) < 10.0


def test_whitening_one_feature_is_standardising_it() -> None:
    bank = torch.randn(50, 1).double()
    white, _ = whiten(bank, bank, ridge=0.0)
    torch.testing.assert_close(white.abs(), ((bank - bank.mean()) / bank.std()).abs())


def test_principal_components_are_scikit_learns() -> None:
    bank, queries = torch.randn(60, 5).double() * torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0]), torch.randn(7, 5).double()
    oracle = PCA(2).fit(bank.numpy())
    ours, of_bank = principal(queries, bank, components=2)
    expected = torch.from_numpy(oracle.transform(queries.numpy()))
    torch.testing.assert_close(ours.flip(1).abs(), expected.abs())
    torch.testing.assert_close(of_bank.flip(1).abs(), torch.from_numpy(oracle.transform(bank.numpy())).abs())
    assert principal(queries, bank, components=5)[0] is queries


def test_principal_components_of_few_samples_are_scikit_learns() -> None:
    bank, queries = torch.randn(6, 20).double(), torch.randn(7, 20).double()
    oracle = PCA(3).fit(bank.numpy())
    ours, of_bank = principal(queries, bank, components=3)
    torch.testing.assert_close(ours.flip(1).abs(), torch.from_numpy(oracle.transform(queries.numpy())).abs())
    torch.testing.assert_close(of_bank.flip(1).abs(), torch.from_numpy(oracle.transform(bank.numpy())).abs())
    assert principal(queries, bank, components=15)[0].shape == (7, 6)
