"""Reading a probe from any kind of dataset and batch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from jepa_monitor.probe.samples import (
    NO_CLASS,
    Samples,
    count_loaders,
    find_images,
    find_label,
    is_stream,
    read_stream,
)

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


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(IMAGES)


class LengthyStream(Stream):
    def __len__(self) -> int:
        return len(IMAGES)


def test_streams_are_distinguished_from_datasets() -> None:
    assert all(is_stream(data) for data in (Stream(), LengthyStream(), DataLoader(Stream()), iter(IMAGES)))
    assert not any(is_stream(data) for data in (IMAGES, list(IMAGES), TensorDataset(IMAGES), 3))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="map-style"):
        Samples.of(object())
    with pytest.raises(ValueError, match="empty"):
        Samples.of(torch.zeros(0, 1, 4, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        Samples.of([torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)]).read([0, 1])


@dataclass
class Item:
    image: np.ndarray
    target: int


def crops(samples: list[Any]) -> dict[str, Tensor]:
    return {"img": torch.stack([image for image, _ in samples])}


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        (IMAGES, torch.arange(7)),
        TensorDataset(IMAGES, torch.arange(7)),
        DataLoader(TensorDataset(IMAGES, torch.arange(7)), batch_size=3, shuffle=True),
        DataLoader(TensorDataset(IMAGES, torch.arange(7)), batch_size=3, collate_fn=crops),
        [{"pixel_values": image, "label": i} for i, image in enumerate(IMAGES)],
        [Item(image.numpy(), i) for i, image in enumerate(IMAGES)],
        [([image, image + 1.0], i) for i, image in enumerate(IMAGES)],
    ],
    ids=["tensor", "tensors", "dataset", "loader", "collating loader", "dicts", "dataclasses", "views"],
)
def test_any_data_are_read_by_index(data: Any) -> None:
    samples = Samples.of(data)
    assert torch.equal(samples.read([4, 1]), IMAGES[[4, 1]])
    labels = samples.read_labels([4, 1])
    assert isinstance(data, Tensor) if labels is None else labels.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("sample", "key", "label"),
    [
        ((IMAGES[0], 3), None, 3),
        ((IMAGES[0], torch.tensor(3)), None, 3),
        ((IMAGES[0], np.int64(3)), None, 3),
        ((IMAGES[0], True), None, 1),
        ((IMAGES[0], np.bool_(False)), None, 0),
        ((IMAGES[0], torch.tensor(True)), None, 1),
        ((IMAGES[0], True), lambda sample: sample[1], 1),
        ((IMAGES[0], 3.0), None, 3),
        ((IMAGES[0], np.float32(3.0)), None, 3),
        ((IMAGES[0], torch.tensor([3.0])), None, 3),
        ((IMAGES[0], torch.tensor([0, 0, 1])), None, 2),
        ((IMAGES[0], np.array([0.0, 1.0, 0.0])), None, 1),
        ((IMAGES[0], 3.0), lambda sample: sample[1], 3),
        ((IMAGES[0], math.nan), None, None),
        ((IMAGES[0], 0.5), None, NO_CLASS),
        ((IMAGES[0], 2.5), lambda sample: sample[1], NO_CLASS),
        ((IMAGES[0], torch.tensor([1, 2])), None, NO_CLASS),
        ((IMAGES[0], torch.tensor([1, 0, 1])), None, NO_CLASS),
        ((IMAGES[0], IMAGES[1]), None, None),
        ((IMAGES[0], "name"), None, None),
        ((IMAGES[0], "name", 3), 2, 3),
        ({"image": IMAGES[0], "target": 3}, None, 3),
        ({"image": IMAGES[0], "kind": 3}, "kind", 3),
        ({"image": IMAGES[0], "kind": {"id": 3}}, lambda sample: sample["kind"]["id"], 3),
        ({"image": IMAGES[0], "kind": {"id": 3}}, lambda sample: sample["kind"].get("name"), None),
        (IMAGES[0], None, None),
    ],
)
def test_labels_are_found(sample: Any, key: Any, label: int | None) -> None:
    found = find_label(sample, key)
    assert found == label
    assert type(found) is type(label)


class Stateful(Dataset[Tensor]):
    """A source whose reading moves generators and a cursor."""

    def __init__(self) -> None:
        self.torch = torch.Generator().manual_seed(0)
        self.numpy = np.random.default_rng(0)
        self.python = random.Random(0)
        self.reads = 0
        self.file: Any = None

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Tensor:
        self.reads += 1
        self.file = object()  # as a file that is opened at the first read
        noise = self.numpy.normal() + self.python.random() + torch.rand((), generator=self.torch)
        return IMAGES[index] + noise


def test_reading_does_not_move_the_users_dataset() -> None:
    dataset, untouched = Stateful(), Stateful()
    for wrapped in (dataset, Subset(dataset, range(5)), ConcatDataset([dataset, dataset])):
        Samples.of(wrapped).read([0, 1])
    assert dataset.reads == 0
    assert dataset.file is None
    assert torch.equal(dataset[3], untouched[3])


def test_a_split_by_sampler_is_kept() -> None:
    split = DataLoader(TensorDataset(IMAGES), sampler=SubsetRandomSampler([6, 2, 4]))
    assert torch.equal(Samples.of(split).read([0, 1, 2]), IMAGES[[2, 4, 6]])


def test_streams_are_read_as_far_as_needed() -> None:
    class Batches(IterableDataset[Tensor]):
        read = 0

        def __iter__(self) -> Iterator[Tensor]:
            for part in IMAGES.split(2):
                Batches.read += 1
                yield part

    (inputs,) = read_stream(DataLoader(Batches(), batch_size=None), skip=1, count=2)
    assert torch.equal(inputs, IMAGES[1:3])
    assert Batches.read == 2
    pairs = list(zip(IMAGES, range(7), strict=True))
    inputs, labels = read_stream(iter(pairs), skip=2, count=3)
    assert torch.equal(inputs, IMAGES[2:5])
    assert labels.tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match="no samples left"):
        read_stream(iter(pairs), skip=7, count=3)


def test_how_many_loaders() -> None:
    loader = DataLoader(TensorDataset(IMAGES))
    assert [count_loaders(loaders) for loaders in (None, loader, [loader, loader])] == [0, 1, 2]
    assert count_loaders(CombinedLoader({"a": loader, "b": [loader, loader]})) == 3


def test_a_collate_function_that_drops_samples_is_refused() -> None:
    dropping = DataLoader(TensorDataset(IMAGES), collate_fn=lambda samples: samples[0][0][None])
    with pytest.raises(ValueError, match="made 1 samples of 2"):
        Samples.of(dropping).read([0, 1])
