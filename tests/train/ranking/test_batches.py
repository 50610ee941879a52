"""Batches end where parts end, whatever their sizes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from jepa_train.ranking.batches import DataSettings, Order, PartBatches, UntilSpent, part_loader
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import list_images
from tests.train.ranking.tiny import pictures, tiny_encoder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> FilesToRank:
    folder = pictures(tmp_path_factory.mktemp("images"), 23)
    return FilesToRank(list_images(folder), tiny_encoder().prepare)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 100])
@pytest.mark.parametrize("parts", [[0, 1, 2, 3, 4], [1, 4], [0, 3], [4], []])
def test_each_image_of_the_parts_comes_once(images: FilesToRank, batch_size: int, parts: list[int]) -> None:
    order = Order(np.random.default_rng(0).permutation(23), part_size=5)
    batches = PartBatches(images, order, parts, batch_size)
    seen: dict[int, list[int]] = {}
    ended = []
    for number in range(len(batches)):
        batch = batches[number]
        assert batches.begins_part(number) == (batch["part"] not in seen)
        seen.setdefault(batch["part"], []).extend(batch["index"].tolist())
        if batch["ends_part"]:
            ended.append(batch["part"])
    assert ended == parts
    assert all(seen[part] == order.of_part(part).tolist() for part in parts)
    assert batches.count == sum(map(len, seen.values()))


def test_no_part_begins_after_the_time_is_spent(images: FilesToRank) -> None:
    batches = PartBatches(images, Order(np.arange(23), part_size=8), [0, 1, 2], 3)
    assert list(UntilSpent(batches, None)) == list(range(len(batches)))
    assert list(UntilSpent(batches, 0.0)) == []
    numbers = iter(UntilSpent(batches, 1e-9 + 0.05))
    first = next(numbers)

    time.sleep(0.06)
    assert [first, *numbers] == [0, 1, 2]  # to the end of its part


def test_workers_read_the_same(images: FilesToRank) -> None:
    batches = PartBatches(images, Order(np.arange(23), part_size=8), [0, 2], 3)
    here = [batch["index"].tolist() for batch in part_loader(batches, DataSettings(num_workers=0))]
    there = [batch["index"].tolist() for batch in part_loader(batches, DataSettings(num_workers=2))]
    assert here == there == [[0, 1, 2], [3, 4, 5], [6, 7], [16, 17, 18], [19, 20, 21], [22]]
