"""Rank correlations against scipy and brute force, and the values that must be NaN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jepa_monitor.ranking import (
    concordance,
    kendall,
    partial_spearman,
    rank_stability,
    slope,
    spearman,
    why_unrankable,
)

STATISTICS = (spearman, kendall, concordance, slope, rank_stability)
BY_RANKS = (spearman, kendall, concordance)
INCREASING: tuple[Callable[[np.ndarray], np.ndarray], ...] = (np.exp, lambda x: x**3 + x, lambda x: 1e9 + 1e3 * x)

few_values = st.integers(-6, 6)
samples = st.lists(st.tuples(few_values, few_values, few_values), min_size=2, max_size=25)


def rankable(rows: list[tuple[int, int, int]]) -> np.ndarray | None:
    columns = np.array(rows, dtype=np.float64).T
    return None if any(why_unrankable(column) for column in columns) else columns


def brute_concordance(scores: np.ndarray, truth: np.ndarray) -> float:
    pairs = [(i, j) for i, j in itertools.combinations(range(len(scores)), 2) if truth[i] != truth[j]]
    agreement = [np.sign(scores[i] - scores[j]) * np.sign(truth[i] - truth[j]) for i, j in pairs]
    return float(np.mean((1.0 + np.array(agreement)) / 2.0))


@settings(deadline=None, max_examples=100)
@given(samples)
def test_all_are_their_oracles_with_ties(rows: list[tuple[int, int, int]]) -> None:
    columns = rankable(rows)
    if columns is None:
        return
    a, b, _ = columns
    ranks = stats.rankdata(a), stats.rankdata(b)
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    assert concordance(a, b) == pytest.approx(brute_concordance(a, b), abs=1e-12)
    assert slope(a, b) == pytest.approx(np.polyfit(b, a, 1)[0], abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(samples, st.sampled_from(INCREASING))
def test_increasing_transforms_change_nothing_and_a_sign_mirrors(
    rows: list[tuple[int, int, int]], transform: Callable[[np.ndarray], np.ndarray]
) -> None:
    columns = rankable(rows)
    if columns is None:
        return
    a, b, c = columns
    for statistic in BY_RANKS:
        assert statistic(transform(a), b) == statistic(a, b)
        centre = 0.5 if statistic is concordance else 0.0
        assert statistic(-a, b) - centre == pytest.approx(centre - statistic(a, b), abs=1e-12)
    np.testing.assert_array_equal(
        partial_spearman(transform(a), b, given=transform(c)), partial_spearman(a, b, given=c)
    )


def test_spearman_and_kendall_are_scipys() -> None:
    a, b = np.random.default_rng(0).integers(0, 9, (2, 200))
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    assert rank_stability(a, b) == spearman(a, b)


def test_slope_is_one_for_a_log_density_right_up_to_a_constant() -> None:
    truth = np.random.default_rng(0).normal(size=50)
    noise = np.random.default_rng(1).normal(size=50)
    assert slope(truth + 1e6, truth) == pytest.approx(1.0, abs=1e-8)
    assert slope(3.0 * truth, truth) == pytest.approx(3.0)
    assert slope(noise, truth) == pytest.approx(stats.linregress(truth, noise).slope)
    assert slope(1e-200 * noise, 1e-200 * truth) == pytest.approx(slope(noise, truth))


def test_partial_spearman_is_the_correlation_of_residuals() -> None:
    a, b, c = np.random.default_rng(0).integers(0, 12, (3, 80)) + np.arange(80) // 20
    ranks = [stats.rankdata(x) for x in (a, b, c)]
    left = [ranks[i] - np.polyval(np.polyfit(ranks[2], ranks[i], 1), ranks[2]) for i in (0, 1)]
    r_ab, r_ac, r_bc = spearman(a, b), spearman(a, c), spearman(b, c)
    closed_form = (r_ab - r_ac * r_bc) / math.sqrt((1 - r_ac**2) * (1 - r_bc**2))
    assert partial_spearman(a, b, given=c) == pytest.approx(stats.pearsonr(*left).statistic, abs=1e-12)
    assert partial_spearman(a, b, given=c) == pytest.approx(closed_form, abs=1e-12)


def test_partial_spearman_sees_through_a_common_cause() -> None:
    cause, first, second = np.random.default_rng(0).normal(size=(3, 3000))
    a, b = cause + 0.3 * first, cause + 0.3 * second
    assert spearman(a, b) > 0.85
    assert abs(partial_spearman(a, b, given=cause)) < 0.06


def test_partial_spearman_of_what_is_given_is_nan() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    for given_values in (a, np.exp(a), -a, np.ones(50)):
        assert math.isnan(partial_spearman(a, b, given=given_values))
        assert math.isnan(partial_spearman(b, a, given=given_values))
    almost = np.where(np.arange(50) < 49, a, a.max() + 1.0)
    assert -1.0 <= partial_spearman(a, b, given=almost) <= 1.0


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1.0, 1.0, 1.0], "equal"),
        ([1.0, math.nan, 2.0], "not finite"),
        ([1.0, math.inf], "not finite"),
        ([1.0], "only 1"),
        ([], "only 0"),
    ],
)
def test_no_ranking_is_nan_with_a_reason(values: list[float], why: str) -> None:
    assert why in str(why_unrankable(values))
    other = list(range(len(values)))
    for statistic in STATISTICS:
        assert math.isnan(statistic(values, other))
        assert math.isnan(statistic(other, values))
    assert why_unrankable([1.0, 2.0]) is None


def test_scores_that_do_not_belong_together_are_refused() -> None:
    for statistic in STATISTICS:
        with pytest.raises(ValueError, match=r"same samples, got 3 \w+, 2 \w+\."):
            statistic([1.0, 2.0, 3.0], [1.0, 2.0])
        with pytest.raises(ValueError, match="one dimension"):
            statistic(np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="2 given"):
        partial_spearman([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], given=[1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
def test_tensors_of_any_kind_are_ranked(dtype: torch.dtype) -> None:
    a = torch.arange(8).to(dtype)
    b = torch.randperm(8).float().requires_grad_()
    for statistic in STATISTICS:
        assert statistic(a, b) == statistic(list(range(8)), b.tolist())
