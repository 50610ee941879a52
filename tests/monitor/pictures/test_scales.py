"""Percentiles, ticks, and how many of many are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jepa_monitor.pictures.scales import evenly_spaced, log_ticks, percentiles
from tests.monitor.pictures.helpers import INF, NAN


@given(st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 7.0, NAN, INF]), max_size=12))
def test_percentiles_are_scipys(values: list[float]) -> None:
    found = percentiles(values)
    finite = [value for value in values if math.isfinite(value)]
    for value, percentile in zip(values, found, strict=True):
        if math.isfinite(value):
            assert percentile == pytest.approx(stats.percentileofscore(finite, value, kind="mean"))
        else:
            assert math.isnan(percentile)


def test_percentiles_are_blind_to_increasing_transforms() -> None:
    values = torch.randn(50, dtype=torch.float64)
    np.testing.assert_array_equal(percentiles(values), percentiles(values.exp()))
    assert len(set(percentiles(values))) == 50


@given(st.floats(-300, 300), st.floats(0.01, 300))
@settings(max_examples=200)
def test_log_ticks_are_few_and_inside(exponent: float, decades: float) -> None:
    low, high = 10.0**exponent, 10.0 ** min(exponent + decades, 307.0)
    if low * 1.02 >= high:
        return
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 11
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.integers(0, 200), st.integers(1, 20))
def test_some_are_not_too_many_and_keep_the_ends(count: int, most: int) -> None:
    found = evenly_spaced(count, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    if count and most > 1:
        assert (found[0], found[-1]) == (0, count - 1)
    if count <= most:
        assert found == list(range(count))
