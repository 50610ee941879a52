"""Image files that are ranked: smooth colors, small pictures of noise, garments; and a bare reader of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from planted.faults import pictures
from torch.utils.data import Dataset

from jepa_train.data import FashionMNISTDataModule

IN_A_FOLDER = 1000  # of many small pictures


class Files(Dataset[torch.Tensor]):
    """The files of a flat folder, prepared, and nothing else."""

    def __init__(self, root: Path, prepare: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.prepare = sorted(root.iterdir()), prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.prepare(picture)


def photographs(folder: Path, count: int, size: int) -> Path:
    """Write JPEG files of smooth random colors."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg")
    return folder


def small_pictures(folder: Path, count: int) -> Path:
    """Write PNG files of 8 px, a thousand a folder."""
    draws = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number // IN_A_FOLDER:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number:06d}.png")
    return folder


def garments(folder: Path, data: FashionMNISTDataModule) -> Path:
    """Write the test images of Fashion-MNIST in folders by class, where they are not there."""
    test = pictures(data, data.probe_dataset())
    for number, (image, label) in enumerate(zip(test.pixels.round().byte(), test.labels.tolist(), strict=True)):
        file = folder / str(label) / f"{number:05d}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.numpy()).save(file)
    return folder
