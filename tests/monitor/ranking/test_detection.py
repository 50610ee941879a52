"""Detection statistics against scikit-learn, with ties and scores of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jepa_monitor.ranking import auroc, auroc_low_density, average_precision, fpr_at_tpr, typicality

STATISTICS = (auroc, average_precision, fpr_at_tpr)

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
