"""A small training that writes down what each batch held and can be resumed; and small files of the MNIST family."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import Dataset

from jepa_train.data import ImageDataModule
from jepa_train.data.resumable import DrawnPerEpoch, EpochSampler, ResumableDataLoader

PARTS = {"train": 200, "t10k": 120}  # images of the idx files
Record = tuple[int, int, list[int], list[float]]  # epoch, batch_idx, indices, random draws


class Numbered(Dataset[dict[str, Any]]):
    """Samples that carry their index and a random number; ``loaded`` counts them in the process that loads."""

    def __init__(self, size: int, *, random: bool) -> None:
        self.size = size
        self.random = random
        self.loaded = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.loaded += 1
        drawn = torch.rand(()) if self.random else torch.tensor(0.0)
        return {"image": drawn.expand(1, 2, 2), "label": index}


class NumberedData(ImageDataModule):
    """``num_train`` numbered samples, drawn at random if ``random``."""

    def __init__(self, num_train: int = 44, batch_size: int = 4, num_workers: int = 0, random: bool = True) -> None:
        super().__init__(2, 1, batch_size, num_workers, seed=3)
        self.num_train = num_train
        self.random = random

    def make_train(self) -> Numbered:
        return Numbered(self.num_train, random=False)

    def make_augmented(self) -> Numbered | None:
        return Numbered(self.num_train, random=True) if self.random else None

    def make_probe(self) -> Numbered:
        return Numbered(4, random=False)


class Killed(Exception):
    """An end of a run that comes from outside."""


class Recorder(pl.LightningModule):
    """Writes down every training batch and every validation; dies where it is told to.

    Args:
        die_at: batches over all epochs, after which the next training step raises.
    """

    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.die_at = die_at
        self.seen: list[Record] = []
        self.validated: list[tuple[int, int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.die_at is not None and len(self.seen) == self.die_at:
            raise Killed
        draws = batch["image"][:, 0, 0, 0].tolist()
        self.seen.append((self.current_epoch, batch_idx, batch["label"].tolist(), draws))
        return self.layer(batch["image"].mean().view(1, 1)).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append((self.current_epoch, self.global_step))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    data: ImageDataModule,
    folder: Path,
    *,
    die_at: int | None = None,
    resume: bool = False,
    saving: dict[str, Any] | None = None,
    module: type[Recorder] = Recorder,
    **settings: Any,
) -> Recorder:
    """Train two epochs, or what ``settings`` say, and give back what was seen, also where the run was killed."""
    recorder = module(die_at)
    saving = {"every_n_train_steps": 1} if saving is None else saving
    trainer = pl.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "devices": 1, **settings},
        logger=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, **saving)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(recorder, data, ckpt_path=folder / "last.ckpt" if resume else None)
    except Killed:
        assert die_at is not None
    else:
        assert die_at is None, "the run ended before it was killed"
    return recorder


def loader(workers: int, **arguments: Any) -> ResumableDataLoader:
    """A loader outside of any Trainer."""
    dataset = DrawnPerEpoch(Numbered(22, random=True), seed=1)
    sampler = EpochSampler(dataset, seed=1, keyed=True, **arguments)
    return ResumableDataLoader(
        dataset,
        sampler=sampler,
        batch_size=4,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=3 if workers else None,
    )


def read(batches: Any) -> list[tuple[list[int], list[float]]]:
    """Labels and draws of each batch."""
    return [(batch["label"].tolist(), batch["image"][:, 0, 0, 0].tolist()) for batch in batches]


def idx_bytes(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, zipped: bool = True, seed: int = 0) -> None:
    """Write both parts, with images whose class can be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for part, count in PARTS.items():
        labels = np.arange(count) % 10
        images = generator.integers(0, 80, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6] += 150
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
