"""Loaders of training batches, and of what is measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jepa_train.data.base import DrawnDataModule, ImageTensors
from jepa_train.errors import ConfigurationError
from tests.train.data.helpers import NumberedData


def test_a_batch_needs_as_many_images_a_process() -> None:
    """Too few images would leave each process an epoch without a batch."""
    processes: Any = SimpleNamespace(
        world_size=2, global_rank=1, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    enough, few = NumberedData(num_train=8, batch_size=4), NumberedData(num_train=7, batch_size=4)
    enough.trainer = few.trainer = processes
    assert len(enough.train_dataloader()) == 1
    with pytest.raises(
        ConfigurationError, match=r"^only 3 training images on each of 2 processes for batch size 4: lower"
    ):
        few.train_dataloader()


def test_images_in_memory_are_samples_with_labels() -> None:
    data = ImageTensors(torch.arange(8.0).view(2, 1, 2, 2), torch.tensor([5, 7]))
    assert len(data) == 2
    assert data[1]["label"] == 7
    assert torch.equal(data[1]["image"], torch.tensor([[[4.0, 5.0], [6.0, 7.0]]]))


def test_validation_test_and_prediction_read_the_probe_in_order() -> None:
    data = NumberedData(num_train=8, batch_size=4)
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        seen = [int(label) for batch in loader for label in batch["label"]]
        assert seen == list(range(len(data.probe_dataset())))  # type: ignore[arg-type]  # torch declares no length


def test_data_sets_are_made_once() -> None:
    data = NumberedData()
    assert data.reference_dataset() is data.reference_dataset()
    assert data.probe_dataset() is data.probe_dataset()


@pytest.mark.parametrize("name", ["batch_size", "num_workers"])
def test_a_number_that_cannot_work_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        NumberedData(**{name: -1})


class Noise(DrawnDataModule[ImageTensors]):
    """White noise."""

    def draw(self, count: int, *, seed: int) -> ImageTensors:
        images = torch.randn(count, self.channels, 2, 2, generator=torch.Generator().manual_seed(seed))
        return ImageTensors(images, torch.zeros(count))


def noise(**settings: int) -> Noise:
    return Noise(2, 3, **{"num_train": 6, "num_probe": 4, "batch_size": 2, "num_workers": 0, "seed": 1} | settings)


def test_training_images_and_probe_are_drawn_apart_and_again_alike() -> None:
    data = noise()
    train, probe = data.make_train(), data.make_probe()
    assert (len(train), len(probe)) == (6, 4)
    assert not torch.equal(train.images[:4], probe.images)
    assert torch.equal(noise().make_train().images, train.images)
    assert not torch.equal(noise(seed=3).make_probe().images, probe.images)
    assert data.probe_advice == "raise --data.num_probe"
    assert data.preparation()["data_config"]["mean"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["num_train", "num_probe"])
def test_nothing_can_be_drawn_of_no_images(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        noise(**{name: 0})
