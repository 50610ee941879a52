"""The Metric is the function: over batches, over processes, and through what people do with Metrics."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from jepa_monitor.gaussianity import EmbeddingGaussianity, gaussianity_statistics
from jepa_monitor.gaussianity.dashboard import NAMES
from tests.processes import run_on


def cloud(n: int = 60) -> Tensor:
    return 1.1 * torch.randn(n, 4, generator=torch.Generator().manual_seed(1)) + 0.1


def assert_same(found: dict[str, Any], expected: dict[str, float], *, rel: float = 1e-6) -> None:
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=rel, abs=0.0)


def test_batches_are_one_call() -> None:
    metric = EmbeddingGaussianity()
    for part in cloud().split([1, 40, 0, 19]):
        metric.update(part)
    found = metric.compute()
    assert_same(found, gaussianity_statistics(cloud()))
    assert all(isinstance(value, Tensor) and value.ndim == 0 for value in found.values())


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    metric = EmbeddingGaussianity()
    first, second = cloud().split([25, 35])
    assert_same(metric(first), gaussianity_statistics(first))
    assert_same(metric(second), gaussianity_statistics(second))
    assert_same(metric.compute(), gaussianity_statistics(cloud()))


def test_arguments_are_those_of_the_function() -> None:
    metric = EmbeddingGaussianity(num_slices=8, seed=3)
    metric.update(cloud())
    assert_same(metric.compute(), gaussianity_statistics(cloud(), num_slices=8, seed=3))


def test_pickle_reset_and_collection() -> None:
    metrics = MetricCollection({"z": EmbeddingGaussianity()}, prefix="val/")
    metrics.update(cloud())
    again = pickle.loads(pickle.dumps(metrics))
    found = again.compute()
    assert_same({name.removeprefix("val/"): value for name, value in found.items()}, gaussianity_statistics(cloud()))
    again.reset()
    again.update(torch.randn(9, 7))  # another K is fine now
    assert not metrics.state_dict()  # nothing of the embeddings goes into checkpoints


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_any_dtype(dtype: torch.dtype) -> None:
    z = (cloud().double() / 0.3).to(dtype)
    metric = EmbeddingGaussianity().half()  # as a module in half precision would do to it
    metric.update(z)
    assert_same(metric.compute(), gaussianity_statistics(z), rel=1e-12)


def test_gradients_are_not_kept() -> None:
    metric = EmbeddingGaussianity()
    metric.update(cloud().requires_grad_())
    assert not any(part.requires_grad for part in metric.embeddings)


def test_before_the_first_embedding_it_is_nan_and_says_so() -> None:
    metric = EmbeddingGaussianity()
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.warns(UserWarning, match="no finite embed"):
        found = metric.compute()
    assert tuple(found) == NAMES
    assert all(math.isnan(value) for value in found.values())


def test_rows_left_out_are_counted() -> None:
    z = cloud()
    z[7] = torch.nan
    metric = EmbeddingGaussianity()
    metric.update(z[:30])
    metric.update(z[30:])
    with pytest.warns(UserWarning, match="1 of 60 embeddings are not finite"):
        found = metric.compute()
    assert_same(found, gaussianity_statistics(torch.cat([z[:7], z[8:]])))


def test_another_width_is_one_sentence() -> None:
    metric = EmbeddingGaussianity()
    metric.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"must all have the same K, got \[4, 5\]"):
        metric.update(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"must be \(B, K\) with K >= 1, got shape \(4,\)"):
        metric.update(torch.zeros(4))


def on_shards(rank: int, sizes: list[int], group: Any = None) -> dict[str, float]:
    """The metric of this process's shard, in batches of 16, gathered."""
    metric = EmbeddingGaussianity(process_group=group)
    shard = cloud().split(sizes)[rank]
    for batch in shard.split(16) if len(shard) else []:
        metric.update(batch)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert sum(map(len, metric.embeddings)) == 4 * len(shard)  # its own again after the gathering
    return found


def with_two_widths(rank: int, group: Any) -> str:
    metric = EmbeddingGaussianity(process_group=group)
    metric.update(torch.zeros(3, 4 + rank))
    try:
        metric.compute()
    except ValueError as error:
        return str(error)
    return ""


def on_three_and_two_processes(rank: int, world_size: int) -> tuple[dict[str, float], dict[str, float], str]:
    """One start of the processes for both, most of the time goes into their imports."""
    on_three = on_shards(rank, [0, 7, 53])
    pair = torch.distributed.new_group([0, 1])
    if rank == 2:
        return on_three, {}, ""
    return on_three, on_shards(rank, [41, 19], pair), with_two_widths(rank, pair)


def test_uneven_shards_on_two_and_three_processes_are_one_call() -> None:
    expected = gaussianity_statistics(cloud())
    results = run_on(3, on_three_and_two_processes)
    for on_three, _, _ in results:  # of which the first received nothing
        assert_same(on_three, expected)
    for _, on_two, error in results[:2]:
        assert_same(on_two, expected)
        assert "must all have the same K, got [4, 5]" in error
