"""Metrics of the benchmark of detection on bootstrap draws, beside those of the package on every draw anew."""

from __future__ import annotations

import numpy as np
import pytest
from detect import resampling
from numpy.typing import NDArray

from jepa_monitor.ranking import auroc, average_precision, bootstrap_interval, fpr_at_tpr, precision_recall_area

OF_PACKAGE = {
    "auroc": auroc,
    "aupr_in_trapezoidal": precision_recall_area,
    "aupr_out_trapezoidal": lambda inside, outside: precision_recall_area(-outside, -inside),
    "aupr_in_stepwise": average_precision,
    "aupr_out_stepwise": lambda inside, outside: average_precision(-outside, -inside),
    "fpr95_ood_positive": lambda inside, outside: fpr_at_tpr(-outside, -inside),
    "fpr95_id_positive": fpr_at_tpr,
}


def scores(step: float) -> list[NDArray[np.float64]]:
    """Scores of two sets of different size; a large step makes most of them equal to others."""
    generator = np.random.default_rng(0)
    return [np.round(generator.normal(size=size) / step) * step + shift for size, shift in ((40, 1.0), (25, 0.0))]


def times_of(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    generator = np.random.default_rng(1)
    return [resampling.times_drawn(len(one), generator) for one in (first, second)]


@pytest.mark.parametrize("step", [1e-9, 0.5, 1.0])
def test_metrics_of_draws_are_those_of_the_resampled_scores(step: float) -> None:
    inside, outside = scores(step)
    times = times_of(inside, outside)
    found = resampling.metrics(inside, outside, *times)
    assert set(found) == set(OF_PACKAGE) == set(resampling.METRICS)
    counts = [one.astype(int) for one in times]
    for name, metric in OF_PACKAGE.items():
        drawn = [metric(np.repeat(inside, a), np.repeat(outside, b)) for a, b in zip(*counts, strict=True)]
        np.testing.assert_allclose(found[name], drawn, rtol=1e-12, err_msg=name)
        assert found[name][0] == pytest.approx(metric(inside, outside), rel=1e-12)
    np.testing.assert_array_equal(resampling.auroc(inside, outside, *times), found["auroc"])


def test_every_draw_is_as_large_as_its_sample_and_the_first_is_the_sample() -> None:
    times = resampling.times_drawn(30, np.random.default_rng(0))
    assert times.shape == (1 + resampling.DRAWS, 30)
    assert (times[0] == 1.0).all()
    assert (times.sum(1) == 30).all()
    assert times[1:].std() == pytest.approx(1.0, abs=0.05)  # close to Poisson


def test_intervals_are_those_of_the_bootstrap() -> None:
    inside, outside = scores(1e-9)
    found = resampling.metrics(inside, outside, *times_of(inside, outside))
    for name, metric in OF_PACKAGE.items():
        ends = resampling.with_ends(name, found[name])
        expected = bootstrap_interval(metric, inside, outside, draws=400)
        width = expected[1] - expected[0]
        np.testing.assert_allclose([ends[f"{name}_low"], ends[f"{name}_high"]], expected, atol=0.25 * width)
        assert ends[name] == found[name][0]


def test_scores_that_cannot_be_ranked_have_no_metrics() -> None:
    times = times_of(np.ones(3), np.ones(4))
    for inside in (np.ones(3), np.array([1.0, np.nan, 2.0])):
        found = resampling.metrics(inside, np.ones(4), *times)
        assert all(np.isnan(drawn).all() for drawn in found.values())
        assert np.isnan(resampling.auroc(inside, np.ones(4), *times)).all()
