"""Spread of features against NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_monitor.evaluation import feature_statistics
from jepa_monitor.evaluation.meaning import is_constant, why_unclassifiable, why_unfit


def test_they_are_numpys() -> None:
    z = torch.randn(50, 4) * torch.tensor([1.0, 2.0, 0.1, 3.0]) + 1.0
    values, x = feature_statistics(z), z.double().numpy()
    assert values["std_mean"] == pytest.approx(x.std(0, ddof=1).mean())
    assert values["std_min"] == pytest.approx(x.std(0, ddof=1).min())
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert values["std_l2_normalised_ratio"] == pytest.approx(2.0 * unit.std(0, ddof=1).mean())


def test_an_isotropic_gaussian_has_ratio_one() -> None:
    values = feature_statistics(5.0 * torch.randn(4000, 16))
    assert values["std_l2_normalised_ratio"] == pytest.approx(1.0, abs=0.01)
    assert values["rank_ratio"] == pytest.approx(1.0, abs=0.01)
    assert values["std_mean"] == pytest.approx(5.0, rel=0.02)


def test_a_collapse_to_a_point_is_zero_and_its_rank_nan() -> None:
    values = feature_statistics(torch.full((20, 4), 0.3))
    assert values["std_mean"] == pytest.approx(0.0, abs=1e-12)
    assert values["std_l2_normalised_ratio"] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(values["rank_ratio"])


def test_a_collapse_to_a_line_has_rank_one() -> None:
    values = feature_statistics(torch.randn(200, 1) * torch.ones(8))
    assert values["rank_ratio"] == pytest.approx(1 / 8, rel=0.05)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_ratios_do_not_depend_on_scale_and_deviations_follow_it(scale: float) -> None:
    z = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).double()
    first, second = feature_statistics(z), feature_statistics(scale * z)
    for name in ("std_l2_normalised_ratio", "rank_ratio"):
        assert second[name] == pytest.approx(first[name])
    for name in ("std_mean", "std_min"):
        assert second[name] == pytest.approx(scale * first[name])


def test_rounding_is_no_spread() -> None:
    z = torch.full((30, 4), 0.7) + 1e-7 * torch.rand(30, 4)
    assert is_constant(z)
    assert not is_constant(z + 1e-4 * torch.rand(30, 4))
    assert is_constant(torch.zeros(3, 2))
    for scale in (1e-6, 1e6):
        assert is_constant(scale * z)
        assert not is_constant(scale * torch.rand(30, 4))
    assert math.isnan(feature_statistics(z)["rank_ratio"])


def test_reasons() -> None:
    z, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    broken = z.clone()
    broken[2, 1] = torch.inf
    assert why_unfit(z) is None
    assert why_unfit(broken) == "1 of 6 are not finite"
    assert "1 sample" in str(why_unfit(z[:1]))
    assert "collapsed" in str(why_unfit(torch.ones(3, 2)))
    assert why_unclassifiable(z, z, labels) is None
    assert "1 of 6 queries" in str(why_unclassifiable(broken, z, labels))
    assert "one class" in str(why_unclassifiable(z, z, 0 * labels))
