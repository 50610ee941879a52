"""Barlow Twins against scipy's correlations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import Barlow, barlow
from tests.train.objectives.helpers import two_views


def test_barlow_is_made_of_correlations() -> None:
    first, second = two_views(30, 4)
    loss = 0.0
    for i in range(4):
        for j in range(4):
            correlation = float(pearsonr(first[:, i].numpy(), second[:, j].numpy()).statistic)
            loss += (1.0 - correlation) ** 2 if i == j else 0.02 * correlation**2
    assert float(barlow(first, second, redundancy_weight=0.02, eps=0.0)) == pytest.approx(loss, rel=1e-10)
    assert float(Barlow(0.02)(first, second, 0)) == pytest.approx(loss, rel=1e-3)  # eps is small beside the variances


def test_barlow_at_its_ends() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    assert float(barlow(signs, signs, eps=0.0)) == pytest.approx(0.0, abs=1e-12)
    assert float(barlow(signs, -signs, eps=0.0)) == pytest.approx(4.0 * 2)
    assert float(barlow(torch.ones(4, 2), torch.ones(4, 2))) == 2.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 5))
def test_scale_sign_and_place_of_a_coordinate_do_not_count(seed: int, count: int, size: int) -> None:
    first, second = two_views(count, size, seed)
    scale = torch.linspace(0.5, 3.0, size).double() * (-1.0) ** torch.arange(size)
    torch.testing.assert_close(
        barlow(first * scale - 2.0, second * scale + 1.0, eps=0.0), barlow(first, second, eps=0.0)
    )


def test_views_of_different_shapes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="same shape"):
        barlow(torch.randn(4, 3), torch.randn(5, 3))
