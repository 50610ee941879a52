"""W-MSE against numpy's Cholesky factor, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import WhiteningMSE, whitening_mse
from tests.train.objectives.helpers import two_views

TINY = 1e-13  # a ridge that is not seen even in twelve digits


def oracle(first: np.ndarray, second: np.ndarray, ridge: float) -> float:
    """2 - 2 cos of the whitened pairs."""
    whitened = []
    for z in (first, second):
        covariance = np.cov(z, rowvar=False)
        covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        whitened.append((z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(covariance)).T)
    cosines = [u @ v / np.sqrt((u @ u) * (v @ v)) for u, v in zip(*whitened, strict=True)]
    return float(np.mean([2.0 - 2.0 * cosine for cosine in cosines]))


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.5])
def test_whitening_mse_is_its_formula(ridge: float) -> None:
    first, second = two_views(30, 4)
    expected = oracle(first.numpy(), second.numpy(), ridge)
    assert 0.1 < expected < 2.0
    assert float(whitening_mse(first, second, ridge=ridge)) == pytest.approx(expected, rel=1e-10)
    assert float(WhiteningMSE(ridge)(first, second, 0)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_default_is_the_published_loss_also_of_directions_that_hardly_vary(dtype: torch.dtype) -> None:
    scales = torch.logspace(0, -3, 16, dtype=torch.float64)
    first, second = (view * scales for view in two_views(200, 16))
    loss = whitening_mse(first.to(dtype), second.to(dtype))
    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(oracle(first.numpy(), second.numpy(), 0.0), rel=1e-4)


def test_nothing_is_won_by_shrinking_a_direction_in_which_the_views_disagree() -> None:
    """A ridge gives one, which then leads to a collapse."""
    shared, *noises = torch.randn(3, 400, 4, dtype=torch.float64)
    first, second = (shared + torch.tensor([0.1, 0.1, 0.1, 3.0]) * noise for noise in noises)
    shrink = torch.tensor([1.0, 1.0, 1.0, 1e-2])
    loss, ridged = whitening_mse(first, second), whitening_mse(first, second, ridge=1e-3)
    assert float(whitening_mse(first * shrink, second * shrink)) == pytest.approx(float(loss), rel=1e-4)
    assert float(whitening_mse(first * shrink, second * shrink, ridge=1e-3)) < 0.9 * float(ridged)


def test_whitening_mse_at_its_ends() -> None:
    first, unrelated = torch.randn(2, 4000, 3).double()
    assert float(whitening_mse(first, 2.0 * first - 1.0)) == pytest.approx(0.0, abs=1e-8)
    assert float(whitening_mse(first, -first)) == pytest.approx(4.0)
    assert float(whitening_mse(first, unrelated)) == pytest.approx(2.0, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_triangular_maps_of_a_view_do_not_count(seed: int, size: int) -> None:
    """They are what Cholesky's whitening divides out."""
    first, second = torch.randn(2, 40, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    triangle = torch.tril(two_views(size, size, seed + 1)[0])
    triangle.diagonal().abs_().add_(1.0)
    moved = whitening_mse(first @ triangle.T - 3.0, 5.0 * second, ridge=TINY)
    torch.testing.assert_close(moved, whitening_mse(first, second, ridge=TINY), rtol=1e-5, atol=1e-6)


def test_as_many_samples_as_coordinates_are_too_few() -> None:
    with pytest.raises(ConfigurationError, match=r"at least 5 samples .* got 4 .* raise the batch size"):
        whitening_mse(*two_views(4, 4))
    assert torch.isfinite(whitening_mse(*two_views(5, 4)))


@pytest.mark.parametrize("size", [8, 256])
def test_one_live_direction_can_be_factored_in_single_precision(size: int) -> None:
    views = [(torch.randn(600, 1) @ torch.randn(1, size)).requires_grad_() for _ in range(2)]
    loss = whitening_mse(*views)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(view.grad is not None and torch.isfinite(view.grad).all() for view in views)


def test_what_cannot_be_factored_is_nan() -> None:
    first, second = two_views(30, 4)
    assert torch.isnan(whitening_mse(first, second, ridge=-10.0))
    first[3, 1] = torch.nan
    assert torch.isnan(whitening_mse(first, second))
