"""Quantiles of the norm against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jepa_monitor.pictures.norms import norm_quantiles
from tests.monitor.pictures.helpers import INF, NAN


def test_quantiles_are_scipys() -> None:
    z = torch.randn(31, 6, dtype=torch.float64)
    expected, observed = norm_quantiles(z)
    np.testing.assert_allclose(expected, stats.chi2.ppf((np.arange(31) + 0.5) / 31, df=6), rtol=1e-12)
    np.testing.assert_allclose(observed, np.sort((z**2).sum(1).numpy()), rtol=1e-12)


def test_a_gaussian_lies_on_the_identity_and_a_scaled_one_beside_it() -> None:
    z = torch.randn(20_000, 16)
    expected, observed = norm_quantiles(z)
    inner = slice(200, -200)
    np.testing.assert_allclose(observed[inner], expected[inner], rtol=0.05)
    np.testing.assert_allclose(norm_quantiles(3.0 * z)[1], 9.0 * observed, rtol=1e-5)
    heavy = norm_quantiles(z * torch.rand(20_000, 1))[1]
    assert np.abs(np.log(heavy[inner] / expected[inner])).max() > 1


def test_quantiles_leave_out_what_is_not_finite() -> None:
    expected, observed = norm_quantiles(torch.tensor([[3.0, 4.0], [NAN, 1.0], [INF, 1.0]]))
    assert observed.tolist() == [25.0]
    assert expected.tolist() == pytest.approx([2 * math.log(2)])
