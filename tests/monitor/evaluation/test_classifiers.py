"""The vote, logistic regression and coordinates against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_monitor.evaluation import LinearProbe, weighted_knn, whiten
from jepa_monitor.evaluation.classifiers import principal


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


def overlapping(classes: int, n: int = 200, d: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of overlapping classes, (n, d) of unequal scales and offsets."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=generator)
    x = centres[labels] + torch.randn(n, d, generator=generator)
    return x * torch.logspace(-2, 2, d) + 10.0, labels


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("ridge", [1e-1, 1e-3])
def test_the_linear_probe_is_scikit_learns(classes: int, ridge: float) -> None:
    x, labels = overlapping(classes)
    probe = LinearProbe.fit(x, labels, ridge=ridge, tol=1e-9)
    scaler = StandardScaler().fit(x.double().numpy())
    standardised = scaler.transform(x.double().numpy())
    oracle = LogisticRegression(C=1.0 / (ridge * len(x)), tol=1e-10, max_iter=100_000).fit(standardised, labels.numpy())
    assert probe.converged
    weight, bias = probe.weight, probe.bias
    if classes == 2:  # scikit-learn has one row for two classes, with half of the penalty for the same difference
        oracle = LogisticRegression(C=2.0 / (ridge * len(x)), tol=1e-10, max_iter=100_000).fit(
            standardised, labels.numpy()
        )
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    np.testing.assert_allclose(weight.numpy(), oracle.coef_, atol=2e-5)
    np.testing.assert_allclose((bias - bias.mean()).numpy() if classes > 2 else bias, oracle.intercept_, atol=2e-5)
    assert probe.predict(x).tolist() == oracle.predict(standardised).tolist()


def test_at_the_optimum_the_gradient_of_autograd_is_zero() -> None:
    x, labels = overlapping(4)
    probe = LinearProbe.fit(x, labels, ridge=0.01, tol=1e-9)
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    logits = (x.double() - probe.mean) / probe.scale @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, labels) + 0.005 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0.0)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-2, 1e2), offset=st.floats(-50.0, 50.0), seed=st.integers(0, 99))
def test_scale_offset_and_order_of_features_change_nothing(scale: float, offset: float, seed: int) -> None:
    x, labels = overlapping(3, n=60)
    x = x.double()
    generator = torch.Generator().manual_seed(seed)
    columns, rows = torch.randperm(7, generator=generator), torch.randperm(60, generator=generator)
    first = LinearProbe.fit(x, labels, tol=1e-8)
    second = LinearProbe.fit((scale * x + offset)[rows][:, columns], labels[rows], tol=1e-8)
    torch.testing.assert_close(second.weight, first.weight[:, columns], atol=1e-4, rtol=1e-4)


def test_columns_without_spread_have_no_weight_and_give_no_nan() -> None:
    x, labels = overlapping(3)
    dead = torch.full((len(x), 1), 1234.5) * (1.0 + 1e-8 * torch.randn(len(x), 1).double())
    probe = LinearProbe.fit(torch.cat([x.double(), dead], dim=1), labels)
    assert torch.isfinite(probe.weight).all()
    assert float(probe.weight[:, -1].abs().max()) < 1e-3
    torch.testing.assert_close(probe.weight[:, :-1], LinearProbe.fit(x, labels).weight, atol=1e-3, rtol=1e-3)


def test_the_linear_probe_says_when_it_did_not_converge() -> None:
    x, labels = overlapping(3)
    probe = LinearProbe.fit(x, labels, max_iterations=2)
    assert not probe.converged
    assert probe.iterations == 2


def test_the_linear_probe_draws_nothing() -> None:
    x, labels = overlapping(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    probe = LinearProbe.fit(x, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(LinearProbe.fit(x, labels).weight, probe.weight)


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
