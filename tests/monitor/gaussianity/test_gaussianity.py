"""Null values over a grid, power against alternatives, and inputs without meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from jepa_monitor.gaussianity import (
    GaussianityNull,
    characteristic_function,
    covariance_error,
    effective_rank,
    epps_pulley,
    epps_pulley_null,
    gaussianity,
    norm_ks,
    sliced_epps_pulley,
)
from jepa_monitor.gaussianity.dashboard import NAMES

RATIOS = [name for name in NAMES if "ratio" in name]


def test_epps_pulley_is_its_integral() -> None:
    x = torch.randn(50, 1).double()

    def integrand(t: float) -> float:
        phi = np.exp(1j * t * x.numpy()).mean()
        return float(abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))

    exact = 50 * integrate.quad(integrand, -3.0, 3.0, limit=200)[0]
    assert float(epps_pulley(characteristic_function(x), 50.0)) == pytest.approx(exact, rel=2e-2)


def test_epps_pulley_null_and_collapse() -> None:
    assert epps_pulley_null() == pytest.approx(1.0525, abs=5e-4)
    collapsed = sliced_epps_pulley(torch.zeros(1000, 4))
    torch.testing.assert_close(collapsed, torch.full((256,), 402.0), rtol=5e-3, atol=0.0)


@pytest.mark.parametrize(("n", "k"), [(256, 4), (512, 8), (512, 64), (100, 200)])
def test_ratios_are_one_for_a_gaussian(n: int, k: int) -> None:
    null = GaussianityNull.draw(n, k)
    draws = [gaussianity(torch.randn(n, k), null=null) for _ in range(12)]
    mean = {name: sum(draw[name] for draw in draws) / len(draws) for name in NAMES}
    for name in RATIOS:
        if name == "effective_rank_ratio" and n < k:
            continue  # its closed form is for n > k
        assert mean[name] == pytest.approx(1.0, abs=0.4), name
    assert mean["norm_ks"] == pytest.approx(0.82, abs=0.35)
    if n > k:
        assert abs(mean["skewness_z"]) < 2.0
        assert abs(mean["kurtosis_z"]) < 2.0


def sphere(n: int, k: int) -> Tensor:
    z = torch.randn(n, k)
    return math.sqrt(k) * z / z.norm(dim=1, keepdim=True)


def clusters(n: int, k: int) -> Tensor:
    centres = torch.randn(4, k)
    return (centres[torch.randint(4, (n,))] + 0.3 * torch.randn(n, k)) / math.sqrt(1.09)


def one_bimodal_axis(n: int, k: int) -> Tensor:
    z = torch.randn(n, k)
    # its variance makes it a principal axis of its own
    z[:, 0] = 1.5 * (torch.randint(2, (n,)) * 2.0 - 1.0 + 0.1 * torch.randn(n))
    return z


ALTERNATIVES = {
    "sphere": (sphere, {"norm_variance_ratio", "norm_ks", "kurtosis_z"}),
    "clusters": (clusters, {"skewness_z", "sliced_ep_ratio_max", "effective_rank_ratio"}),
    "laplace": (lambda n, k: torch.distributions.Laplace(0.0, 0.5**0.5).sample((n, k)), {"kurtosis_z", "norm_ks"}),
    "t5": (
        lambda n, k: torch.from_numpy(stats.t.rvs(5, size=(n, k), random_state=0) / math.sqrt(5 / 3)),
        {"kurtosis_z", "norm_variance_ratio"},
    ),
    "half rank": (
        lambda n, k: torch.randn(n, k // 2) @ torch.linalg.qr(torch.randn(k, k)).Q[: k // 2],
        {"effective_rank_ratio", "covariance_error_ratio"},
    ),
    "one bimodal axis": (one_bimodal_axis, {"axis_ep_ratio_max"}),
    "shifted mean": (lambda n, k: torch.randn(n, k) + 0.3, {"mean_error_ratio", "sliced_ep_ratio"}),
    "scaled": (lambda n, k: 1.5 * torch.randn(n, k), {"covariance_error_ratio", "sliced_ep_ratio", "norm_ks"}),
    "power law": (
        lambda n, k: torch.randn(n, k) * torch.arange(1, k + 1) ** -0.5,
        {"covariance_error_ratio", "effective_rank_ratio", "sliced_ep_ratio"},
    ),
}


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_alternatives_are_seen(name: str) -> None:
    n, k = 1024, 16
    null = GaussianityNull.draw(n, k)
    gaussian = [gaussianity(torch.randn(n, k), null=null) for _ in range(8)]
    make, seen_by = ALTERNATIVES[name]
    seen = gaussianity(make(n, k), null=null)
    for statistic in seen_by:
        values = [draw[statistic] for draw in gaussian]
        spread = max(values) - min(values)
        outside = max(min(values) - seen[statistic], seen[statistic] - max(values))
        assert outside > 1.5 * spread, (statistic, seen[statistic], values)


def test_axis_statistic_sees_a_bimodal_axis_that_slices_miss() -> None:
    seen = gaussianity(one_bimodal_axis(1024, 64))
    assert seen["axis_ep_ratio_max"] > 5.0
    assert seen["sliced_ep_ratio"] < 1.5


@pytest.mark.parametrize(
    "z",
    [torch.randn(10, 40), torch.ones(20, 4), torch.randn(1, 4), torch.randn(2, 4), torch.full((5, 3), torch.nan)],
    ids=["N < K", "constant", "one sample", "two samples", "all NaN"],
)
def test_without_meaning_it_is_nan_and_never_infinite(z: Tensor) -> None:
    values = gaussianity(z)
    assert set(values) == set(NAMES)
    assert not any(math.isinf(value) for value in values.values())
    if torch.isnan(z).all():
        assert all(math.isnan(value) for value in values.values())
    if len(z) == 20:
        assert math.isnan(values["effective_rank_ratio"])
        assert values["norm_variance_ratio"] == 0.0  # the variance of equal norms: a collapse is visible here


def test_a_nan_row_does_not_spread() -> None:
    z = torch.randn(65, 4)
    clean = gaussianity(z[:64])
    z[64, 1] = torch.nan
    assert gaussianity(z) == clean


def test_closed_forms() -> None:
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # covariance is 2/3 I
    assert covariance_error(z) == pytest.approx(2 * (1 / 3) ** 2 / 2)
    assert effective_rank(z) == pytest.approx(2.0)
    squared = z.square().sum(1).numpy()
    assert norm_ks(z) == pytest.approx(2.0 * stats.kstest(squared, stats.chi2(2).cdf).statistic)
