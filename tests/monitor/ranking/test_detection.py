"""Detection statistics against scikit-learn, with ties and scores of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from jepa_monitor.ranking import (
    auroc,
    auroc_low_density,
    auroc_null_interval,
    average_precision,
    bootstrap_interval,
    fpr_at_tpr,
    matched_pairs,
    precision_recall_area,
    typicality,
)

STATISTICS = (auroc, average_precision, fpr_at_tpr, precision_recall_area)

large_scores = st.lists(st.integers(-200, 200), min_size=1, max_size=30)
tied_scores = st.lists(st.integers(-3, 3), min_size=1, max_size=60)
scores = st.one_of(large_scores, tied_scores)


def fpr_of_scikit_learn(labels: list[int], values: list[int], tpr: float) -> float:
    rates = roc_curve(labels, values, drop_intermediate=False)
    return float(min(fpr for fpr, reached, _ in zip(*rates, strict=True) if reached >= tpr))


@settings(deadline=None, max_examples=150)
@given(scores, scores, st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]))
def test_all_are_scikit_learns_with_ties_and_large_scores(first: list[int], second: list[int], tpr: float) -> None:
    joint, labels = first + second, [1] * len(first) + [0] * len(second)
    if len(set(joint)) == 1:
        assert all(math.isnan(statistic(first, second)) for statistic in STATISTICS)
        return
    assert auroc(first, second) == pytest.approx(roc_auc_score(labels, joint), abs=1e-12)
    assert auroc(second, first) == pytest.approx(1.0 - auroc(first, second), abs=1e-12)
    assert average_precision(first, second) == pytest.approx(average_precision_score(labels, joint), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, joint)
    assert precision_recall_area(first, second) == pytest.approx(auc(recall, precision), abs=1e-12)
    assert fpr_at_tpr(first, second, tpr=tpr) == pytest.approx(fpr_of_scikit_learn(labels, joint, tpr), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(scores, scores)
def test_increasing_transforms_change_nothing_and_a_sign_swaps_the_sets(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    for statistic in STATISTICS:
        np.testing.assert_array_equal(statistic(np.exp(a / 10), np.exp(b / 10)), statistic(a, b))
    np.testing.assert_allclose(auroc(-b, -a), auroc(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", range(1, 201))
def test_enough_positives_pass_the_threshold_and_not_one_more(count: int) -> None:
    positive = np.arange(float(count))
    passing = round(fpr_at_tpr(positive, positive - 0.5) * count) + 1  # negatives lie between the positives
    assert passing / count >= 0.95 > (passing - 1) / count


@pytest.mark.parametrize("needed", range(1, 101))
def test_a_rate_that_rounds_up_lets_no_further_positive_pass(needed: int) -> None:
    positive = np.arange(100.0)  # 0.07 * 100 is above 7
    assert fpr_at_tpr(positive, positive - 0.5, tpr=needed / 100) == pytest.approx((needed - 1) / 100)


def test_the_positive_class_matters() -> None:
    inside, outside = np.arange(100.0), np.concatenate([np.full(10, 200.0), np.full(90, -1.0)])
    assert fpr_at_tpr(inside, outside) == pytest.approx(0.1)
    assert fpr_at_tpr(-outside, -inside) == 1.0
    assert average_precision(inside, outside) != pytest.approx(average_precision(-outside, -inside), abs=1e-3)


def test_without_a_set_or_a_ranking_it_is_nan() -> None:
    for statistic in STATISTICS:
        for first, second in (([], [1.0, 2.0]), ([1.0, 2.0], []), ([1.0, math.nan], [1.0]), ([2.0, 2.0], [2.0])):
            assert math.isnan(statistic(first, second))


def test_low_density_is_found() -> None:
    truth = np.arange(100.0)
    assert auroc_low_density(truth, truth) == 1.0
    assert auroc_low_density(-truth, truth) == 0.0
    assert math.isnan(auroc_low_density(truth, np.zeros(100)))
    assert math.isnan(auroc_low_density(truth, np.minimum(truth, 1.0)))  # nothing lies above the lowest decile


def test_low_density_is_scikit_learns() -> None:
    truth, noise = np.random.default_rng(0).normal(size=(2, 500))
    low = truth <= np.sort(truth)[99]
    assert auroc_low_density(truth + noise, truth, share=0.2) == pytest.approx(roc_auc_score(~low, truth + noise))


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="tpr must be above 0"):
        fpr_at_tpr([1.0], [0.0], tpr=0.0)
    with pytest.raises(ValueError, match="tpr must be above 0"):
        fpr_at_tpr([1.0], [0.0], tpr=95.0)
    with pytest.raises(ValueError, match="share must be between"):
        auroc_low_density([1.0, 2.0], [1.0, 2.0], share=10.0)
    with pytest.raises(ValueError, match="same samples"):
        auroc_low_density([1.0, 2.0], [1.0, 2.0, 3.0])


def test_typicality_is_two_sided() -> None:
    reference = np.array([-1.0, 0.0, 1.0])
    assert typicality([5.0, -5.0, 0.0], reference).tolist() == [-5.0, -5.0, 0.0]


def test_the_out_of_distribution_as_the_positive_class_is_as_in_openood() -> None:
    inside, outside = np.random.default_rng(0).normal([[0.8], [0.0]], size=(2, 300))
    conf, is_ood = np.concatenate([inside, outside]), np.repeat([0, 1], 300)
    # its metrics: scikit-learn's curves of minus the confidence, the first rate of at least 95 %, areas by trapezoids
    rates, reached, _ = roc_curve(is_ood, -conf)
    assert fpr_at_tpr(-outside, -inside) == rates[np.argmax(reached >= 0.95)]
    for labels, values, ours in (
        (is_ood, -conf, precision_recall_area(-outside, -inside)),
        (1 - is_ood, conf, precision_recall_area(inside, outside)),
    ):
        precision, recall, _ = precision_recall_curve(labels, values)
        assert ours == pytest.approx(auc(recall, precision), abs=1e-12)


def test_trapezoids_promise_more_than_steps() -> None:
    positive, negative = np.array([3.0, 1.0]), np.array([2.0, 0.0])
    assert average_precision(positive, negative) == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)
    assert precision_recall_area(positive, negative) == pytest.approx(0.5 * 1.0 + 0.5 * (1 / 2 + 2 / 3) / 2)


def test_sets_of_one_distribution_lie_in_the_null_interval_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(2_000, 50))
    low, high = auroc_null_interval(20, 30, level=0.9)
    share = np.mean([low <= auroc(scores[:20], scores[20:]) <= high for scores in draws])
    assert share == pytest.approx(0.9, abs=0.02)
    assert low + high == pytest.approx(1.0)


def test_bootstrapped_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal([[1.0], [0.0]], size=(200, 2, 60))
    truth = 0.7602499389065233  # the probability that N(1, 2) is above 0
    intervals = [bootstrap_interval(auroc, *sets, level=0.9, draws=100) for sets in draws]
    assert np.mean([low <= truth <= high for low, high in intervals]) == pytest.approx(0.9, abs=0.06)
    assert bootstrap_interval(auroc, *draws[0], draws=20) == bootstrap_interval(auroc, *draws[0], draws=20)


def test_what_stands_in_one_row_is_resampled_together() -> None:
    inside, outside = np.random.default_rng(0).normal([[[1.0]], [[0.0]]], size=(2, 50, 1))

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return auroc(a[:, 0], b[:, 0]) - auroc(a[:, 1], b[:, 1])

    pairs = [np.hstack([values, 2.0 * values]) for values in (inside, outside)]
    assert bootstrap_interval(difference, *pairs, draws=50) == (0.0, 0.0)


def test_an_interval_of_nothing_is_nan() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval(auroc, [], [1.0, 2.0], draws=5))
    assert all(math.isnan(end) for end in bootstrap_interval(auroc, [1.0, 1.0], [1.0], draws=5))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 12), max_size=8), st.lists(st.integers(0, 12), max_size=8), st.integers(0, 3))
def test_as_many_pairs_agree_as_can_be(first: list[int], second: list[int], within: int) -> None:
    pairs = matched_pairs(first, second, within=within)
    assert all(abs(first[a] - second[b]) <= within for a, b in pairs)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    near = np.abs(np.subtract.outer(np.array(first, dtype=int), np.array(second, dtype=int))) <= within
    assert len(pairs) == (maximum_bipartite_matching(csr_array(near)) >= 0).sum()


def test_a_score_that_measures_complexity_is_worth_nothing_on_matched_pairs() -> None:
    generator = np.random.default_rng(0)
    simple, complicated = generator.normal(0.0, 1.0, 2_000), generator.normal(1.0, 1.0, 2_000)
    a, b = matched_pairs(simple, complicated, within=0.02).T
    assert auroc(-simple, -complicated) > 0.7
    assert len(a) > 800
    low, high = auroc_null_interval(len(a), len(b))
    assert low < auroc(-simple[a], -complicated[b]) < high


def test_samples_without_a_value_have_no_partner() -> None:
    assert matched_pairs([math.nan, 1.0], [1.0, -math.inf], within=0.5).tolist() == [[1, 0]]
    assert matched_pairs([], [1.0], within=1.0).shape == (0, 2)


def test_levels_and_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        bootstrap_interval(auroc, [1.0], [0.0], level=95.0)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        auroc_null_interval(5, 5, level=1.0)
    with pytest.raises(ValueError, match="draws must be"):
        bootstrap_interval(auroc, [1.0], [0.0], draws=0)
    with pytest.raises(ValueError, match="within must be 0 or more"):
        matched_pairs([1.0], [1.0], within=math.nan)
