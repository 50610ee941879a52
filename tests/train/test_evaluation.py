"""The weighted vote against scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from jepa_train.evaluation import weighted_knn, whiten


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


def test_whitening_is_mahalanobis_distance_of_the_bank() -> None:
    bank, queries = torch.randn(200, 3).double() @ torch.randn(3, 3).double() + 2.0, torch.randn(5, 3).double()
    white_queries, white_bank = whiten(queries, bank, ridge=0.0)
    torch.testing.assert_close(torch.cov(white_bank.T), torch.eye(3).double())
    difference = queries[0] - bank[0]
    mahalanobis = difference @ torch.linalg.inv(torch.cov(bank.T)) @ difference
    torch.testing.assert_close((white_queries[0] - white_bank[0]).square().sum(), mahalanobis)


def test_whitening_survives_dead_directions() -> None:
    bank = torch.cat([torch.randn(50, 2), torch.zeros(50, 1)], dim=1)
    white, _ = whiten(bank, bank)
    assert float(white.abs().max()) < 10.0
