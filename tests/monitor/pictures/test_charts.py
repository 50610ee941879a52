"""The charts of a run follow from the tags that it has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from jepa_monitor.pictures.charts import Course, alarms_of, charts_of, interval_of
from jepa_monitor.pictures.story import Chart

STEPS = (0, 10)
SIZES = {"num_samples": 512, "embedding_size": 8}
ALWAYS = {
    "gaussianity/sliced_ep_ratio": (50.0, 1.5),
    "gaussianity/effective_rank_ratio": (0.5, 0.9),
    "gaussianity/variance_share": (0.1, 0.9),
    "jacobian/intrinsic_dimension": (3.0, 4.0),
    "jacobian/intrinsic_dimension_low": (2.9, 3.9),
    "jacobian/intrinsic_dimension_high": (3.1, 4.1),
    "density/stability": (0.5, 0.9),
    "monitor/keep": (0.2, 0.3),
    "monitor/samples": (45.0, 45.0),
}
TRUTH = {
    "density/spearman": (0.1, 0.9),
    "density/spearman_jepa_score": (0.2, 0.8),
    "density/spearman_gaussian": (0.7, 0.7),
}
ACCURACIES = {"knn/accuracy": {10: 0.8}, "knn/accuracy_pixels": {10: 0.7}}


def labels(chart: Chart) -> list[str]:
    return [line.label for line in chart.lines]


def test_with_a_truth_the_ranking_stands_beside_its_baselines() -> None:
    ranking, gaussianity, dimension = charts_of(Course(STEPS, ALWAYS | TRUTH), {}, **SIZES)
    assert labels(ranking) == ["log density", "JEPA-SCORE", "on pixels"]
    assert [line.dashed for line in ranking.lines] == [False, False, True]
    assert labels(gaussianity) == ["sliced EP", "rank", "variance"]
    assert dimension.lines[0].interval == ((2.9, 3.9), (3.1, 4.1))


def test_without_a_truth_it_is_told_by_other_sets_and_stability() -> None:
    ranked = {f"density/ood_auroc/{name}": (0.5, 0.9) for name in ("mnist", "corrupted")}
    alone = {"density/ood_auroc_embedding/mnist": (0.5, 0.1)}
    ranking, *_ = charts_of(Course(STEPS, ALWAYS | ranked | alone), {}, **SIZES)
    assert labels(ranking) == ["mnist", "mnist z", "corrupted", "stability"]
    assert [line.values[-1] for line in ranking.lines[:3]] == [0.9, 0.1, 0.9]  # the ranking's, and that without volume
    assert [line.dashed for line in ranking.lines[:3]] == [False, True, False]
    assert [value for value, _, _ in ranking.bounds] == [0.5]
    without, *_ = charts_of(Course(STEPS, ALWAYS), {}, **SIZES)
    assert labels(without) == ["stability"]
    assert not without.bounds


def test_gaussianity_has_a_logarithmic_axis_a_band_and_both_collapses() -> None:
    _, chart, *_ = charts_of(Course(STEPS, ALWAYS), {}, **SIZES)
    assert chart.logarithmic
    assert chart.band is not None
    assert chart.band[0] < 1.0 < chart.band[1]
    assert [value for value, _, _ in chart.bounds] == pytest.approx([0.38 * 512, 0.38 * 512, 1.05 / 8, 2e-3])


def test_accuracies_are_shown_where_an_evaluation_measures_them() -> None:
    *_, features = charts_of(Course(STEPS, ALWAYS | TRUTH), ACCURACIES, **SIZES)
    assert labels(features) == ["features", "pixels", "keep"]
    assert features.lines[0].steps == [10]
    *_, keep = charts_of(Course(STEPS, ALWAYS), {}, **SIZES)
    assert labels(keep) == ["keep"]


def test_a_first_measurement_without_a_ranking_leaves_that_chart_out() -> None:
    first = {tag: values for tag, values in ALWAYS.items() if tag != "density/stability"}
    assert all(chart.lines for chart in charts_of(Course(STEPS, first), {}, **SIZES))


def test_a_ranking_says_of_how_many_samples_it_is() -> None:
    for more in ({}, TRUTH, {"density/ood_auroc/mnist": (0.5, 0.9)}):
        ranking, *_ = charts_of(Course(STEPS, ALWAYS | more), {}, **SIZES)
        assert "45 samples" in ranking.title


def test_a_ranking_of_few_samples_has_a_wide_interval() -> None:
    few, many = (
        charts_of(Course(STEPS, ALWAYS | TRUTH | {"monitor/samples": (n, n)}), {}, **SIZES)[0].lines[0].interval
        for n in (45.0, 512.0)
    )
    assert few is not None
    assert many is not None
    for low, high, less, more, value in zip(*few, *many, TRUTH["density/spearman"], strict=True):
        assert low < less < value < more < high


def test_the_interval_is_that_of_draws() -> None:
    rng = np.random.default_rng(0)
    normal = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]], size=(2000, 60))
    found = [float(stats.spearmanr(pair).statistic) for pair in normal]
    low, high = interval_of(float(np.median(found)), 60)
    assert (low, high) == pytest.approx(np.quantile(found, (0.025, 0.975)), abs=0.03)
    assert all(math.isnan(end) for end in (*interval_of(0.5, 3), *interval_of(math.nan, 60)))
    assert interval_of(1.0, 60)[1] == pytest.approx(1.0)


def test_alarms_have_the_names_of_their_tags() -> None:
    course = Course(STEPS, {"monitor/alarm_turned_over": (0.0, 1.0), "density/stability": (0.1, 0.2)})
    assert alarms_of(course) == {"turned over": (STEPS, (0.0, 1.0))}
