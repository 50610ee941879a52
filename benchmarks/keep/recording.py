"""Recording of label-free tags while a run trains, and of the accuracies by which they are judged."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from jepa_monitor.evaluation import LinearProbe, recovery, weighted_knn, whiten
from jepa_train.data.base import ImageTensors, Samples
from jepa_train.data.fashion_mnist import FashionMNISTDataModule
from jepa_train.module import JEPA

SEEN = 5_000  # test images that label-free tags see
JUDGED = 4_000  # of the others, which the judge classifies
BANK = 2_000  # labelled training images of the judge
MEASUREMENTS = "measurements.json"


class HalvedFashionMNIST(FashionMNISTDataModule):
    """Fashion-MNIST with half of the test images for label-free tags, and the other half for the judge.

    Args:
        num_train: training images, the first ones; all by default.
        contrast, batch_size, seed: as in the base class.
    """

    def __init__(
        self, num_train: int | None = None, contrast: float = 1.0, batch_size: int = 128, seed: int = 0
    ) -> None:
        super().__init__(contrast=contrast, batch_size=batch_size, seed=seed)
        self.num_train = num_train

    def make_train(self) -> ImageTensors:
        """The first training images."""
        return first(super().make_train(), self.num_train)

    def make_probe(self) -> ImageTensors:
        """The test images that label-free tags see."""
        return first(super().make_probe(), SEEN)

    def ood_datasets(self) -> dict[str, Samples]:
        """No further sets."""
        return {}

    def judged(self) -> tuple[ImageTensors, ImageTensors]:
        """Labelled training images, and test images that no label-free tag sees."""
        test = super().make_probe()
        unseen = ImageTensors(test.images[SEEN:], test.labels[SEEN:])
        return first(super().make_train(), BANK), first(unseen, JUDGED)


def first(images: ImageTensors, count: int | None) -> ImageTensors:
    """The first images of a set."""
    return ImageTensors(images.images[:count], images.labels[:count])


class Record(pl.Callback):
    """Write all metrics of each validation and the accuracies of the target's mean tokens to ``measurements.json``.

    The file is one mapping of tag to value a line of its list, and always whole. It is written in the folder from which
    the run was started.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._judged: tuple[ImageTensors, ImageTensors] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record a validation, after the callbacks that measured in it."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, JEPA)
        if self._judged is None:
            self._judged = trainer.datamodule.judged()  # type: ignore[attr-defined]  # set by its data connector
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"step": trainer.global_step, **metrics, **accuracies(pl_module, *self._judged)})
        write(self.rows, Path(MEASUREMENTS))


@torch.no_grad()
def accuracies(module: JEPA, bank: ImageTensors, queries: ImageTensors) -> dict[str, float]:
    """Share of queries that a linear probe and a nearest-neighbour vote on mean tokens classify rightly."""
    of_bank, of_queries = features(module, bank.images), features(module, queries.images)
    probed = LinearProbe.fit(of_bank, bank.labels).predict(of_queries)
    white_queries, white_bank = whiten(of_queries, of_bank)
    voted = weighted_knn(white_queries.float(), white_bank.float(), bank.labels)
    return {
        "judge/linear_probe": float((probed == queries.labels).double().mean()),
        "judge/knn": float((voted == queries.labels).double().mean()),
    }


def features(module: JEPA, images: Tensor) -> Tensor:
    """Mean tokens (N, D) of the target encoder, in float64."""
    return torch.cat([module.features(part) for part in images.split(500)]).double()


@torch.no_grad()
def recoveries(folder: Path, steps: Sequence[int], images: Tensor) -> list[float]:
    """``features/recovery`` of the checkpoints of a run, on images (N, C, H, W); the last step is ``last.ckpt``."""
    names = [f"step_{step}" for step in steps[:-1]] + ["last"]
    modules = (JEPA.load_from_checkpoint(folder / f"{name}.ckpt", map_location="cpu").eval() for name in names)
    return [recovery(features(module, images), images.flatten(1)) for module in modules]


def write(rows: list[dict[str, float]], path: Path) -> None:
    """Put the rows in place of the file, which is whole at any time; NaN is null."""
    lines = [json.dumps({name: value if value == value else None for name, value in row.items()}) for row in rows]
    partial = path.with_suffix(".partial")
    partial.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    os.replace(partial, path)
