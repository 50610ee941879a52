"""The callback with samples of any structure, and with training data that it cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from tests.monitor.foreign.helpers import (
    Classifier,
    ConvAutoencoder,
    TextEncoder,
    assert_embeds,
    assert_meaningful,
    fit,
    labels,
    pixels,
    sentences,
    small_monitor,
    spoken,
    transformer,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(zip(sentences()))


@pytest.mark.parametrize("data", [TensorDataset(sentences()), Stream()], ids=["token numbers", "a stream"])
def test_training_data_that_cannot_be_a_reference_costs_only_that(tmp_path: Path, data: Any) -> None:
    """The probe is given; the reference, by default the training data, cannot be read by index as real numbers."""
    callback = small_monitor(probe=spoken())

    with pytest.warns(UserWarning, match="reference|baseline|leaves"):
        run = fit(tmp_path, TextEncoder(transformer()), DataLoader(data, 32), callback)
    assert_meaningful(run.callback_metrics)


@dataclass
class Item:
    image: Tensor
    label: int


@dataclass
class Picture:
    """Stands for a PIL image."""

    content: Tensor


class Pair(NamedTuple):
    image: Tensor
    label: int


class Listed(Dataset[Any]):
    def __init__(self, item: Callable[[Tensor, int], Any]) -> None:
        self.items = [item(image, int(label)) for image, label in zip(pixels(), labels(), strict=True)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def together(items: Sequence[Any]) -> Any:
    if isinstance(items[0], Item):
        return Item(torch.stack([item.image for item in items]), torch.tensor([item.label for item in items]))
    if isinstance(items[0], Picture):
        return torch.stack([item.content for item in items])
    return default_collate(items)


class Structured(Classifier):
    """Finds the image in a batch of its own structure."""

    def __init__(self, find: Callable[[Any], Tensor]) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh()), nn.Linear(12, 3))
        self.find = find

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(self.find(batch)).square().mean()


STRUCTURES: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor], dict[str, Any]]] = {
    "tensor": (pixels, lambda batch: batch, {}),
    "tuple": (lambda: Listed(lambda x, y: (x, y)), lambda batch: batch[0], {}),
    "label first": (lambda: Listed(lambda x, y: (y, x)), lambda batch: batch[1], {"images": 1}),
    "named tuple": (lambda: Listed(Pair), lambda batch: batch.image, {}),
    "dict": (lambda: Listed(lambda x, y: {"label": y, "image": x}), lambda batch: batch["image"], {}),
    "dict of an unusual key": (
        lambda: Listed(lambda x, y: {"scan": x}),
        lambda batch: batch["scan"],
        {"images": "scan"},
    ),
    "dataclass": (lambda: Listed(Item), lambda batch: batch.image, {}),
    "pictures that the loader converts": (lambda: Listed(lambda x, y: Picture(x)), lambda batch: batch, {}),
    "two views and a label": (lambda: Listed(lambda x, y: ((x, -x), y)), lambda batch: batch[0][0], {}),
    "dict of views": (
        lambda: Listed(lambda x, y: {"views": [{"image": x}, {"image": -x}]}),
        lambda batch: batch["views"][0]["image"],
        {},
    ),
    "two views by a function": (
        lambda: Listed(lambda x, y: ((x, -x), y)),
        lambda batch: batch[0][0],
        {"images": lambda batch: batch[0][1]},
    ),
}


@pytest.mark.parametrize(("dataset", "find", "settings"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_inputs_are_found_in_a_dataset_of(
    tmp_path: Path, dataset: Callable[[], Any], find: Callable[[Any], Tensor], settings: dict[str, Any]
) -> None:
    module, callback = Structured(find), small_monitor(encoder="network", **settings)
    run = fit(tmp_path, module, DataLoader(dataset(), 32, collate_fn=together), callback)
    assert_meaningful(run.callback_metrics)
    assert_embeds(callback, module.network(-pixels() if callable(settings.get("images")) else pixels()))


def test_a_callback_used_again_measures_the_new_project(tmp_path: Path) -> None:
    callback = small_monitor(encoder="network", at_start=False)
    for seed in (1, 2):
        module = Structured(lambda batch: batch)
        fit(tmp_path, module, DataLoader(pixels(seed=seed), 32), callback)

        assert_embeds(callback, module.network(pixels(seed=seed)))


def test_bytes_become_inputs_through_preprocess(tmp_path: Path) -> None:
    class FromBytes(ConvAutoencoder):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch.float() / 255, batch_idx)

    raw = (128 + 40 * pixels()).clamp(0, 255).to(torch.uint8)
    callback = small_monitor(pool="flatten", preprocess=lambda x: x.float() / 255)
    run = fit(tmp_path, FromBytes(), DataLoader(raw, 32), callback)
    assert_meaningful(run.callback_metrics)
