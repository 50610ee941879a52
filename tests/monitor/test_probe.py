"""Reading a probe from any kind of dataset and batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from jepa_monitor.probe import find_images, gather_by_index, load_shard, read_inputs

IMAGES = torch.rand(7, 1, 4, 4)


@dataclass
class Batch:
    pixel_values: Tensor


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        (IMAGES, None),
        ((IMAGES, torch.zeros(7)), None),
        ([torch.zeros(7), IMAGES], 1),
        ({"label": torch.zeros(7), "image": IMAGES}, None),
        ({"mine": IMAGES}, "mine"),
        (Batch(IMAGES), None),
        ({"deep": {"er": IMAGES}}, lambda batch: batch["deep"]["er"]),
    ],
)
def test_images_are_found(batch: Any, key: Any) -> None:
    assert torch.equal(find_images(batch, key), IMAGES)


@pytest.mark.parametrize(
    ("batch", "key", "message"),
    [
        ({"label": torch.zeros(7)}, None, "with 'label'"),
        ({"image": IMAGES}, "images", "under 'images' in a batch with 'image'"),
        (3, None, "batch of type int"),
    ],
)
def test_what_is_not_found_is_named(batch: Any, key: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_images(batch, key)


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_shards_cover_the_probe_once(world_size: int) -> None:
    dataset = TensorDataset(IMAGES)
    shards = [load_shard(dataset, count=100, rank=rank, world_size=world_size) for rank in range(world_size)]
    indices = torch.cat([shard.indices for shard in shards])
    inputs = torch.cat([shard.inputs for shard in shards])
    assert all(len(shard.indices) for shard in shards)  # a process without a sample would miss a collective
    assert torch.equal(gather_by_index(indices, inputs), IMAGES)


def test_count_limits_the_probe() -> None:
    assert len(load_shard(IMAGES, count=3, rank=0, world_size=1).inputs) == 3


def test_refusals() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            return iter(IMAGES)

    with pytest.raises(ValueError, match="map-style"):
        load_shard(Stream(), count=3, rank=0, world_size=1)
    with pytest.raises(ValueError, match="empty"):
        load_shard(torch.zeros(0, 1, 4, 4), count=3, rank=0, world_size=1)
    with pytest.raises(ValueError, match="uint8"):
        read_inputs((IMAGES * 255).to(torch.uint8), [0])
