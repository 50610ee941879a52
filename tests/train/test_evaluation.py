"""The weighted vote against scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from jepa_train.evaluation import weighted_knn


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
