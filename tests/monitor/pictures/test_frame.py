"""The frame of a chart: places on linear and logarithmic scales, ticks with their numbers, and no axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from jepa_monitor.pictures.figure import BLUE, canvas
from jepa_monitor.pictures.frame import Frame, Scale


def test_places_are_shares_of_the_way() -> None:
    assert Scale(-1.0, 3.0).places([-1.0, 1.0, 3.0, 5.0]).tolist() == [0.0, 0.5, 1.0, 1.5]
    assert Scale(0.1, 1000.0, logarithmic=True).places([0.1, 10.0, 1000.0]).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_what_has_no_place_is_nan() -> None:
    places = Scale(0.1, 10.0, logarithmic=True).places([0.0, -1.0, math.nan, math.inf, 1.0])
    assert np.isnan(places).tolist() == [True, True, True, False, False]
    assert math.isinf(places[3])


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[0.1, 0.9], [5.0], [1e-8, 1e9], [math.nan], [3.0, math.inf]])
def test_scales_have_room_for_all_and_ticks_within(values: list[float], logarithmic: bool) -> None:
    scale = Scale.over(values, logarithmic=logarithmic)
    assert scale.low < scale.high
    assert all(scale.low <= value <= scale.high for value in values if math.isfinite(value))
    ticks = scale.ticks(4)
    assert ticks == sorted(ticks)
    assert all(scale.low <= tick <= scale.high for tick in ticks)


def test_numbers_tell_ticks_apart_and_line_up() -> None:
    assert Scale(0.0, 1.0).numbers([0.0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert Scale(0.0, 9.0).numbers([0.0, 5.0]) == ["0", "5"]
    assert Scale(0.0, 2e6).numbers([0.0, 1e6]) == ["0", "1e+06"]
    assert Scale(1e-3, 1e3, logarithmic=True).numbers([0.001, 1.0, 100.0]) == ["0.001", "1", "100"]


def test_whole_ticks_are_whole() -> None:
    assert all(tick == int(tick) for tick in Scale(0.0, 2.0).ticks(9, whole=True))
    assert Scale.over([7.0]).ticks(3, whole=True) == [7.0]


def test_heights_stay_within_the_frame() -> None:
    frame = Frame(canvas(100, 100), 10, 20, 50, 40, Scale(0.0, 1.0), Scale(0.0, 1.0))
    assert [frame.down(value) for value in (1.0, 0.25, -9.0, 9.0, math.nan)] == [0.0, 30.0, 40.0, 0.0, 40.0]
    assert frame.across([0.0, 1.0]).tolist() == [10.0, 60.0]
    assert frame.up([0.0, 1.0]).tolist() == [40.0, 80.0]


def test_a_band_breaks_where_a_value_has_no_place() -> None:
    frame = Frame(canvas(100, 100), 0, 0, 100, 100, Scale(0.0, 4.0), Scale(0.0, 1.0))
    frame.band([0.1, 0.1, math.nan, 0.1, 0.1], [0.9] * 5, range(5), colour=BLUE)
    (band,) = frame.figure.artists
    assert isinstance(band, PolyCollection)
    assert len(band.get_paths()) == 2
