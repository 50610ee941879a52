"""Scores of embeddings by the reference, and of its own embeddings by all others of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_monitor import EmbeddingReference
from jepa_monitor.ranking import Mahalanobis
from jepa_train.ranking.references import fit_reference
from jepa_train.ranking.scores import embedding_scores, mahalanobis_distance


def test_an_embedding_of_the_reference_is_compared_with_the_others() -> None:
    z = torch.randn(60, 4).numpy()
    reference = fit_reference(z, np.arange(60), images="a", encoder="e", source="s")
    places = torch.from_numpy(reference.places(np.arange(60), "a"))
    scores = embedding_scores(reference.z, reference, places)
    torch.testing.assert_close(
        scores["embedding_log_density"], EmbeddingReference.fit(torch.from_numpy(z)).leave_one_out()
    )
    distances = torch.cdist(reference.z, reference.z).sort(1).values
    torch.testing.assert_close(scores["knn_distance"], distances[:, 10])


def test_embeddings_of_other_images_are_compared_with_all() -> None:
    reference = fit_reference(torch.randn(60, 4).numpy(), np.arange(60), images="a", encoder="e", source="s")
    other = torch.randn(7, 4).double()
    other[2, 1] = torch.nan
    scores = embedding_scores(other, reference, torch.full((7,), -1))
    assert reference.density is not None
    torch.testing.assert_close(scores["embedding_log_density"], reference.density.log_density(other), equal_nan=True)
    assert all(torch.isfinite(values).tolist() == [index != 2 for index in range(7)] for values in scores.values())


def test_mahalanobis_without_one_is_that_of_the_others() -> None:
    z = torch.randn(40, 3).double()
    fit = Mahalanobis.fit(z)
    found = mahalanobis_distance(fit, z, fitted_to=40)
    for index in (0, 17, 39):
        others = torch.cat([z[:index], z[index + 1 :]])
        covariance = torch.cov(others.T, correction=0)
        # at the shrinkage, and towards the target, of all
        target = fit.factor.square().sum() / 3 * torch.eye(3).double()
        shrunk = (1 - fit.shrinkage) * covariance + fit.shrinkage * target
        centred = z[index] - others.mean(0)
        expected = math.sqrt(float(centred @ torch.linalg.solve(shrunk, centred)))
        assert float(found[index]) == pytest.approx(expected, rel=1e-6)


def test_mahalanobis_of_others_is_that_of_the_monitor() -> None:
    fit, other = Mahalanobis.fit(torch.randn(40, 3)), torch.randn(5, 3).double()
    torch.testing.assert_close(-0.5 * mahalanobis_distance(fit, other).square(), fit.score(other))


def test_few_embeddings_in_many_dimensions_have_finite_distances() -> None:
    z = torch.randn(5, 30).numpy()
    reference = fit_reference(z, np.arange(5), images="a", encoder="e", source="s")
    scores = embedding_scores(reference.z, reference, torch.arange(5))
    assert all(torch.isfinite(values).all() for values in scores.values())
