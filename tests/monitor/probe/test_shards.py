"""Each process reads its own shard of a set, and together they have all of it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from jepa_monitor.probe.samples import Samples
from jepa_monitor.probe.shards import BatchedShard, Shard, compute_everywhere, gather_by_index, shard_indices

IMAGES = torch.rand(7, 1, 4, 4)


@pytest.mark.parametrize(("total", "world_size"), [(7, 1), (7, 2), (9, 3), (2, 5)])
def test_all_processes_get_equally_many_and_together_all(total: int, world_size: int) -> None:
    shards = [shard_indices(total, global_rank=i, world_size=world_size) for i in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    assert set(torch.cat(shards).tolist()) == set(range(total))


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_shards_cover_the_probe_once(world_size: int) -> None:
    samples = Samples.of(TensorDataset(IMAGES))
    shards = [Shard.read(samples, 100, global_rank=i, world_size=world_size) for i in range(world_size)]
    indices = torch.cat([shard.indices for shard in shards])
    inputs = torch.cat([shard.inputs for shard in shards])
    # a process with fewer samples would leave out a collective of a sharded encoder
    assert {len(shard.indices) for shard in shards} == {-(-7 // world_size)}
    assert torch.equal(gather_by_index(indices, inputs), IMAGES)


def test_count_limits_the_probe() -> None:
    assert len(Shard.read(Samples.of(IMAGES), 3).inputs) == 3


@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_are_those_of_the_shard_each_time(world_size: int) -> None:
    samples, positions = Samples.of(TensorDataset(IMAGES, torch.arange(7))), torch.tensor([6, 2, 3, 0])
    for global_rank in range(world_size):
        shard = BatchedShard(samples, positions, global_rank, world_size)
        for _ in range(2):
            ((indices, inputs, labels),) = shard.batches()
            assert torch.equal(indices, shard_indices(4, global_rank=global_rank, world_size=world_size))
            assert torch.equal(inputs, IMAGES[positions[indices]])
            assert torch.equal(labels, positions[indices])


def test_functions_are_computed_everywhere_in_the_order_of_the_set() -> None:
    shard = BatchedShard(Samples.of(IMAGES), torch.tensor([6, 2, 3]), 0, 1)
    means = {"mean": lambda inputs, _: inputs.mean((1, 2, 3))}
    found = compute_everywhere(shard, means, device=torch.device("cpu"))
    torch.testing.assert_close(found["mean"], IMAGES[[6, 2, 3]].mean((1, 2, 3)))
    assert found["labels"].tolist() == [-1, -1, -1]
