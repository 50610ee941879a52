"""Robust deviations of log density and complexity, joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_train.ranking.doubt import FEWEST_OF_A_CLASS, deviations, doubt

NO_CLASS = np.full(400, None, dtype=object)


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log densities and compressed sizes of 400 images of one kind."""
    draws = np.random.default_rng(seed)
    return draws.normal(-40.0, 5.0, 400), np.exp(draws.normal(6.0, 0.2, 400))


def test_of_gaussian_scores_it_is_a_distance_in_their_deviations() -> None:
    density, size = drawn()
    density[0], size[0] = -40.0 - 15.0, np.exp(6.0)
    density[1], size[1] = -40.0, np.exp(6.0 + 0.8)
    density[2], size[2] = -40.0 - 15.0, np.exp(6.0 - 0.8)
    np.testing.assert_allclose(doubt(density, size, NO_CLASS)[:3], [3.0, 4.0, 5.0], rtol=0.1)


def test_a_dense_image_of_usual_size_is_not_doubtful() -> None:
    density, size = drawn()
    density[0], size[0] = 0.0, np.median(size)
    assert doubt(density, size, NO_CLASS)[0] < 0.05


@pytest.mark.parametrize(
    ("count", "unusual"), [(200, False), (FEWEST_OF_A_CLASS, False), (FEWEST_OF_A_CLASS - 1, True)]
)
def test_sizes_are_compared_within_a_class_that_has_enough_images(count: int, unusual: bool) -> None:
    _, size = drawn()
    size[:count] *= 10.0
    classes = np.array(["large"] * count + ["small"] * (400 - count), dtype=object)
    found = doubt(np.zeros(400), size, classes)
    assert bool(np.median(found[:count]) > 3.0) is unusual
    assert np.median(found[count:]) < 1.5


@given(st.floats(0.1, 10.0), st.floats(-100.0, 100.0), st.floats(0.1, 10.0))
def test_units_do_not_matter(scale: float, shift: float, unit: float) -> None:
    density, size = drawn()
    expected = doubt(density, size, NO_CLASS)
    np.testing.assert_allclose(doubt(scale * density + shift, unit * size, NO_CLASS), expected, atol=1e-6)


def test_what_has_no_score_has_no_doubt_and_disturbs_no_other() -> None:
    density, size = drawn()
    density[7], size[9] = np.nan, np.nan
    found = doubt(density, size, NO_CLASS)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7, 9]


def test_one_image_has_no_deviation() -> None:
    assert np.isnan(doubt(np.array([1.0]), np.array([300.0]), np.array([None], dtype=object))).all()
    assert np.isnan(doubt(np.array([1.0, np.nan]), np.array([300.0, 200.0]), NO_CLASS[:2])).all()


def test_a_class_whose_files_are_unreadable_but_one_is_compared_with_all() -> None:
    density, size = drawn()
    size[1:30] = np.nan
    classes = np.array(["broken"] * 30 + ["whole"] * 370, dtype=object)
    assert np.isfinite(doubt(density, size, classes)[[0, 30]]).all()


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 9.0], [np.nan, np.nan], []])
def test_values_without_a_spread_say_nothing(values: list[float]) -> None:
    found = deviations(np.array(values))
    assert (found[np.isfinite(found)] == 0.0).all()
    assert np.isnan(found).tolist() == np.isnan(np.array(values)).tolist()
