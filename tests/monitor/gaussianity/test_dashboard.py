"""All statistics at once, as a function and as a metric: power, invariances, inputs without meaning, processes."""

from __future__ import annotations

import math
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from jepa_monitor.gaussianity import (
    Cloud,
    EmbeddingGaussianity,
    axis_epps_pulley,
    covariance_error,
    effective_rank,
    gaussianity_statistics,
    mardia,
    mean_error,
    norm_concentration,
    sliced_epps_pulley,
)
from jepa_monitor.gaussianity.dashboard import STATISTICS as RECORDS
from tests.processes import run_on

from .helpers import ALTERNATIVES

NAMES = tuple(record.name for record in RECORDS)

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


@pytest.mark.slow
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


def test_the_largest_of_few_slices_is_one_too() -> None:
    torch.manual_seed(3)
    draws = [gaussianity_statistics(torch.randn(64, 8), num_slices=2)["sliced_ep_ratio_max"] for _ in range(60)]
    assert abs(np.mean(draws) - 1.0) < 4.0 * (np.std(draws) / math.sqrt(60) + 0.02)
    assert np.mean(draws) > 0.6  # over the null value of 256 slices it is 0.3


def test_an_odd_axis_that_has_the_others_variance_is_missed() -> None:
    z = torch.randn(1024, 64)
    z[:, 0] = torch.randint(2, (1024,)) * 2.0 - 1.0
    null = gaussian_draws(1024, 64)
    for name, value in gaussianity_statistics(z).items():
        assert abs(value - null[name].mean()) < 4.5 * null[name].std(), name


def test_each_value_has_its_own_name() -> None:
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
    with pytest.raises(ValueError, match=r"must be \(N, K\), got shape"):
        gaussianity_statistics(torch.zeros(shape))


def test_a_prepared_cloud_gives_the_same() -> None:
    z = torch.randn(30, 4)
    cloud = Cloud.of(z)
    for statistic in STATISTICS:
        np.testing.assert_array_equal(statistic(cloud), statistic(z))


def shifted_cloud(n: int = 60) -> Tensor:
    return 1.1 * torch.randn(n, 4, generator=torch.Generator().manual_seed(1)) + 0.1


def assert_same(found: dict[str, Any], expected: dict[str, float], *, rel: float = 1e-6) -> None:
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=rel, abs=0.0)


def test_batches_of_the_metric_are_one_call() -> None:
    metric = EmbeddingGaussianity()
    for part in shifted_cloud().split([1, 40, 0, 19]):
        metric.update(part)
    found = metric.compute()
    assert_same(found, gaussianity_statistics(shifted_cloud()))
    assert all(isinstance(value, Tensor) and value.ndim == 0 for value in found.values())


def test_forward_of_the_metric_gives_the_batch_and_keeps_the_whole() -> None:
    metric = EmbeddingGaussianity()
    first, second = shifted_cloud().split([25, 35])
    assert_same(metric(first), gaussianity_statistics(first))
    assert_same(metric(second), gaussianity_statistics(second))
    assert_same(metric.compute(), gaussianity_statistics(shifted_cloud()))


def test_arguments_of_the_metric_are_those_of_the_function() -> None:
    metric = EmbeddingGaussianity(num_slices=8, seed=3)
    metric.update(shifted_cloud())
    assert_same(metric.compute(), gaussianity_statistics(shifted_cloud(), num_slices=8, seed=3))


def test_metric_pickle_reset_and_collection() -> None:
    metrics = MetricCollection({"z": EmbeddingGaussianity()}, prefix="val/")
    metrics.update(shifted_cloud())
    again = pickle.loads(pickle.dumps(metrics))
    found = again.compute()
    assert_same(
        {name.removeprefix("val/"): value for name, value in found.items()}, gaussianity_statistics(shifted_cloud())
    )
    again.reset()
    again.update(torch.randn(9, 7))  # another K is fine now
    assert not metrics.state_dict()  # nothing of the embeddings goes into checkpoints


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_metric_of_any_dtype(dtype: torch.dtype) -> None:
    z = (shifted_cloud().double() / 0.3).to(dtype)
    metric = EmbeddingGaussianity().half()  # as a module in half precision would do to it
    metric.update(z)
    assert_same(metric.compute(), gaussianity_statistics(z), rel=1e-12)


def test_the_metric_keeps_no_gradients() -> None:
    metric = EmbeddingGaussianity()
    metric.update(shifted_cloud().requires_grad_())
    assert not any(part.requires_grad for part in metric.embeddings)


def test_before_the_first_embedding_the_metric_is_nan_and_says_so() -> None:
    metric = EmbeddingGaussianity()
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.warns(UserWarning, match="no finite embed"):
        found = metric.compute()
    assert tuple(found) == NAMES
    assert all(math.isnan(value) for value in found.values())


def test_rows_that_the_metric_left_out_are_counted() -> None:
    z = shifted_cloud()
    z[7] = torch.nan
    metric = EmbeddingGaussianity()
    metric.update(z[:30])
    metric.update(z[30:])
    with pytest.warns(UserWarning, match="1 of 60 embeddings are not finite"):
        found = metric.compute()
    assert_same(found, gaussianity_statistics(torch.cat([z[:7], z[8:]])))


def test_another_width_of_the_metric_is_one_sentence() -> None:
    metric = EmbeddingGaussianity()
    metric.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"must all have the same K, got \[4, 5\]"):
        metric.update(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"must be \(N, K\), got shape \(4,\)"):
        metric.update(torch.zeros(4))


def on_shards(global_rank: int, sizes: list[int], group: Any = None) -> dict[str, float]:
    """The metric of this process's shard, in batches of 16, gathered."""
    metric = EmbeddingGaussianity(process_group=group)
    shard = shifted_cloud().split(sizes)[global_rank]
    for batch in shard.split(16) if len(shard) else []:
        metric.update(batch)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert sum(map(len, metric.embeddings)) == 4 * len(shard)  # its own again after the gathering
    return found


def with_two_widths(global_rank: int, group: Any) -> str:
    metric = EmbeddingGaussianity(process_group=group)
    metric.update(torch.zeros(3, 4 + global_rank))
    try:
        metric.compute()
    except ValueError as error:
        return str(error)
    return ""


def on_three_and_two_processes(global_rank: int, world_size: int) -> tuple[dict[str, float], dict[str, float], str]:
    """One start of the processes for both, most of the time goes into their imports."""
    on_three = on_shards(global_rank, [0, 7, 53])
    pair = torch.distributed.new_group([0, 1])
    if global_rank == 2:
        return on_three, {}, ""
    return on_three, on_shards(global_rank, [41, 19], pair), with_two_widths(global_rank, pair)


@pytest.mark.slow
def test_uneven_shards_on_two_and_three_processes_are_one_call() -> None:
    expected = gaussianity_statistics(shifted_cloud())
    results = run_on(3, on_three_and_two_processes)
    for on_three, _, _ in results:  # of which the first received nothing
        assert_same(on_three, expected)
    for _, on_two, error in results[:2]:
        assert_same(on_two, expected)
        assert "must all have the same K, got [4, 5]" in error
