"""All statistics at once: power against alternatives, invariances, and inputs without meaning."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepa_monitor.gaussianity import (
    Cloud,
    axis_epps_pulley,
    covariance_error,
    effective_rank,
    gaussianity_statistics,
    mardia,
    mean_error,
    norm_concentration,
    sliced_epps_pulley,
)
from jepa_monitor.gaussianity.dashboard import NAMES

from .helpers import ALTERNATIVES

STATISTICS = (
    sliced_epps_pulley, axis_epps_pulley, covariance_error, mean_error, norm_concentration, mardia, effective_rank
)  # fmt: skip


@cache
def gaussian_draws(n: int, k: int) -> dict[str, np.ndarray]:
    torch.manual_seed(17)
    draws = [gaussianity_statistics(torch.randn(n, k)) for _ in range(48)]
    return {name: np.array([draw[name] for draw in draws]) for name in NAMES}


@pytest.mark.parametrize(("n", "k"), [(1024, 64), (1024, 16), (100, 300)])
def test_a_gaussian_is_one_or_zero(n: int, k: int) -> None:
    for name, values in gaussian_draws(n, k).items():
        expected = 0.0 if name.endswith("_z") else 0.86 if name == "norm_ks" else 1.0
        null_error = 0.02 if name.endswith("max") else 1e-4
        assert abs(values.mean() - expected) < 4.0 * (values.std() / math.sqrt(48) + null_error), name


@pytest.mark.parametrize("k", [16, 64])
@pytest.mark.parametrize("name", ALTERNATIVES)
def test_power(name: str, k: int) -> None:
    null = gaussian_draws(1024, k)
    torch.manual_seed(5)
    cloud, seen_by, missed_by = ALTERNATIVES[name]
    values = gaussianity_statistics(cloud(1024, k))
    distance = {name: (values[name] - draws.mean()) / draws.std() for name, draws in null.items()}
    for statistic in NAMES:
        if "ep_ratio" in statistic or "error" in statistic:
            continue
        distance[statistic] = abs(distance[statistic])  # the others warn in both directions
    if k == 64:
        assert {s: distance[s] for s in seen_by if distance[s] < 5.0} == {}
        assert {s: distance[s] for s in missed_by if distance[s] > 4.5} == {}
    assert max(distance[s] for s in seen_by) > 8.0


def test_an_odd_axis_that_has_the_others_variance_is_missed() -> None:
    z = torch.randn(1024, 64)
    z[:, 0] = torch.randint(2, (1024,)) * 2.0 - 1.0
    null = gaussian_draws(1024, 64)
    for name, value in gaussianity_statistics(z).items():
        assert abs(value - null[name].mean()) < 4.5 * null[name].std(), name


def test_the_names_are_in_the_order_of_the_values() -> None:
    z = 1.2 * torch.randn(200, 5) + 0.1
    values = gaussianity_statistics(z)
    assert tuple(values) == NAMES
    assert values["norm_ks"] == norm_concentration(z).ks
    assert values["norm_variance_ratio"] == norm_concentration(z).variance_ratio
    assert (values["skewness_z"], values["kurtosis_z"]) == mardia(z)
    assert values["mean_error_ratio"] == pytest.approx(mean_error(z) * 200 / 5)
    assert values["covariance_error_ratio"] == pytest.approx(covariance_error(z) * 199 / 6)


def rotation(k: int) -> Tensor:
    return torch.linalg.qr(torch.randn(k, k).double()).Q


@settings(deadline=None, max_examples=25, derandomize=True)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([(40, 3), (70, 6), (12, 20)]), scale=st.floats(0.01, 100.0))
def test_invariances(seed: int, size: tuple[int, int], scale: float) -> None:
    torch.manual_seed(seed)
    z = scale * torch.randn(size).exp().double()
    shuffled, turned = z[torch.randperm(len(z))], z @ rotation(size[1])
    for statistic in STATISTICS:
        np.testing.assert_allclose(statistic(shuffled), statistic(z), rtol=1e-6, atol=1e-9)
    for statistic in (covariance_error, mean_error, norm_concentration, effective_rank, mardia):
        np.testing.assert_allclose(statistic(turned), statistic(z), rtol=1e-6, atol=1e-9)
    for statistic in (effective_rank, mardia, axis_epps_pulley):
        np.testing.assert_allclose(statistic(3.0 * z + 7.0), statistic(z), rtol=1e-6, atol=1e-9)


# statistics that have a meaning, by input
ALL = frozenset(NAMES)
PLACED = frozenset(name for name in NAMES if name.startswith(("sliced", "mean")) or name == "norm_ks")
SPREAD = PLACED | {"covariance_error_ratio", "norm_variance_ratio"}
DEGENERATE = {
    "N < K": (torch.randn(10, 40), ALL),
    "N = K": (torch.randn(40, 40), ALL),
    "half of the dimensions constant": (torch.randn(50, 8) * torch.tensor([1.0, 0.0] * 4), ALL),
    "constant": (torch.full((777, 4), 0.3, dtype=torch.float64), SPREAD),  # whose mean is rounded
    "constant and far": (torch.full((777, 4), 3e20, dtype=torch.float64) / 7.0, SPREAD),
    "one sample": (torch.randn(1, 4), PLACED),
    "two samples": (torch.randn(2, 4), SPREAD | {"effective_rank_ratio"}),
    "three samples": (torch.randn(3, 4), ALL - {"kurtosis_z"}),
    "one dimension": (torch.randn(50, 1), ALL),
    "huge": (1e20 * torch.randn(50, 4), ALL),
    "as large as float32": (3e38 * torch.rand(50, 4), ALL),
    "tiny": (1e-30 * torch.randn(50, 4), ALL),
    "two places": (torch.randint(2, (50, 1)).float().expand(50, 4), ALL),
    "integers": (torch.randint(-3, 4, (50, 4)), ALL),
    "half": (torch.randn(50, 4).half(), ALL),
    "bfloat16": (torch.randn(50, 4).bfloat16(), ALL),
    "with gradient": (torch.randn(50, 4, requires_grad=True), ALL),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_finite_where_it_has_a_meaning_and_nan_elsewhere(name: str) -> None:
    z, with_meaning = DEGENERATE[name]
    values = gaussianity_statistics(z)
    assert {key for key, value in values.items() if math.isfinite(value)} == with_meaning
    assert {key for key, value in values.items() if math.isnan(value)} == ALL - with_meaning


def test_collapse_is_visible() -> None:
    values = gaussianity_statistics(torch.full((20, 4), 0.1))
    assert values["norm_variance_ratio"] == 0.0
    assert values["covariance_error_ratio"] == pytest.approx(19 / 5)
    assert math.isnan(values["effective_rank_ratio"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e39])
def test_rows_that_are_not_finite_are_counted_and_left_out(bad: float) -> None:
    z = torch.randn(66, 4).double()
    clean = gaussianity_statistics(z[:64])
    z[64:, 1] = bad
    with pytest.warns(UserWarning, match="2 of 66 embeddings are not finite and were left out"):
        assert gaussianity_statistics(z) == clean
    for statistic in STATISTICS:
        with pytest.warns(UserWarning, match="2 of 66"):
            np.testing.assert_array_equal(statistic(z), statistic(z[:64]))


@pytest.mark.parametrize("z", [torch.full((5, 3), torch.nan), torch.zeros(0, 3)], ids=["all NaN", "no samples"])
@pytest.mark.filterwarnings("ignore:5 of 5 embeddings")
def test_nothing_finite(z: Tensor) -> None:
    with pytest.warns(UserWarning, match="There are no finite embeddings"):
        values = gaussianity_statistics(z)
    assert all(math.isnan(value) for value in values.values())
    for statistic in STATISTICS:
        assert np.isnan(np.asarray(statistic(z))).all()


@pytest.mark.parametrize("shape", [(5,), (5, 2, 3), (5, 0)])
def test_a_wrong_shape_is_one_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, K\) with K >= 1, got shape"):
        gaussianity_statistics(torch.zeros(shape))


def test_a_prepared_cloud_gives_the_same() -> None:
    z = torch.randn(30, 4)
    cloud = Cloud.of(z)
    for statistic in STATISTICS:
        np.testing.assert_array_equal(statistic(cloud), statistic(z))


def test_whitened_axes_are_orthonormal_in_a_spread_spectrum() -> None:
    z = torch.randn(200, 12).double() * torch.logspace(0, -4, 12) + 3.0
    white = Cloud.of(z).white
    torch.testing.assert_close(white.T @ white / 200, torch.eye(12).double(), rtol=0.0, atol=1e-6)
    assert float(white.mean(0).abs().max()) < 1e-9
