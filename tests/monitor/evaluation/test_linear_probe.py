"""Logistic regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_monitor.evaluation import LinearProbe


def overlapping(classes: int, n: int = 200, d: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of classes that cannot be told apart entirely, (n, d) of unequal scales and offsets."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=generator)
    x = centres[labels] + torch.randn(n, d, generator=generator)
    return x * torch.logspace(-2, 2, d) + 10.0, labels


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("ridge", [1e-1, 1e-3])
def test_it_is_scikit_learns(classes: int, ridge: float) -> None:
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


def test_it_says_when_it_did_not_converge() -> None:
    x, labels = overlapping(3)
    probe = LinearProbe.fit(x, labels, max_iterations=2)
    assert not probe.converged
    assert probe.iterations == 2


def test_it_draws_nothing() -> None:
    x, labels = overlapping(3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    probe = LinearProbe.fit(x, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(LinearProbe.fit(x, labels).weight, probe.weight)
