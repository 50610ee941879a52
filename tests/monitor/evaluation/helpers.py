"""A foreign project whose batches have labels, and what several processes do with it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from jepa_monitor import FeatureStatistics, LiDAR, OnlineKNN, OnlineLinearProbe
from tests.monitor.helpers import Autoencoder

CLASSES = 3


class Labelled(Autoencoder):
    """Takes batches of any kind, and offers features beside its embedding."""

    def features(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step((batch["image"] if isinstance(batch, dict) else batch[0],), batch_idx)


def classes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 4, 4) of three classes that overlap, sorted by class, as a folder of images is."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) * CLASSES // count
    return centres[labels] + 1.6 * torch.randn(count, 1, 4, 4, generator=generator), labels


class Dicts(Dataset[dict[str, Any]]):
    """Samples as dicts, with a random change at each reading if asked for."""

    def __init__(self, count: int, seed: int = 0, *, augment: bool = False) -> None:
        self.images, self.labels = classes(count, seed)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        if self.augment:
            image = image * (1.0 + 0.1 * random.random()) + 0.1 * torch.rand(1) + 0.1 * np.random.rand()
        return {"image": image, "label": int(self.labels[index])}


def tuples(count: int, seed: int = 0, *, batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*classes(count, seed)), batch_size=batch_size)


def dicts(count: int, seed: int = 0, *, augment: bool = False) -> DataLoader[Any]:
    return DataLoader(Dicts(count, seed, augment=augment), batch_size=8)


def evaluations(**settings: Any) -> list[Any]:
    kinds = (OnlineKNN, OnlineLinearProbe, LiDAR, FeatureStatistics)
    return [kind(on_error="raise", **settings) for kind in kinds]


def logged(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {tag: float(value) for tag, value in metrics.items() if "/" in tag}


def labelled_module() -> Labelled:
    pl.seed_everything(0, verbose=False)
    return Labelled()
