"""Folders of Fashion-MNIST with 2 % of planted faults of one kind, and of clean images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from jepa_train.data import FashionMNISTDataModule
from jepa_train.data.base import ImageTensors, Samples

CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SHARE = 0.02
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Pictures:
    """Pixels (N, 28, 28) in 0..255 and labels (N,)."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: slice | Tensor) -> Pictures:
        """Choose some of them."""
        return Pictures(self.pixels[index], self.labels[index])


def _noise(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return (pixels + 0.3 * 255.0 * torch.randn(pixels.shape, generator=draws)).clamp(0, 255)


def _blur(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return transforms.gaussian_blur(pixels[:, None], [7, 7], [1.5, 1.5])[:, 0]


def _blank(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return torch.zeros_like(pixels) + 25.0 * torch.rand(len(pixels), 1, 1, generator=draws)


def _near(pixels: Tensor, draws: torch.Generator) -> Tensor:
    """Brighten or darken by up to 5 %, with a noise of 2 of 255: what saving a picture twice does."""
    factors = 1.0 + 0.1 * (torch.rand(len(pixels), 1, 1, generator=draws) - 0.5)
    return (pixels * factors + 2.0 * torch.randn(pixels.shape, generator=draws)).clamp(0, 255)


FAULTS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "upside down": lambda pixels, draws: pixels.flip(1),
    "noise": _noise,
    "blur": _blur,
    "blank": _blank,
}
DUPLICATES: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "exact duplicates": lambda pixels, draws: pixels,
    "near duplicates": _near,
}
DIGITS, WRONG = "digits", "wrong class"
KINDS = (DIGITS, *FAULTS, WRONG, *DUPLICATES)
FINDS_FAULTS = (DIGITS, *FAULTS)
CLEAN = "clean"


@dataclass(frozen=True)
class Planted:
    """Images with faults among them.

    Attributes:
        pictures: images and the class that each is filed under.
        is_fault: which are to be found; of a duplicate both copies.
    """

    pictures: Pictures
    is_fault: Truth


def plant(kind: str, clean: Pictures, others: Pictures, digits: Tensor, draws: torch.Generator) -> Planted:
    """Add ``SHARE`` of faults to clean images; ``others`` are clean images that are not among them."""
    if kind == CLEAN:
        return Planted(clean, np.zeros(len(clean.labels), dtype=bool))
    count = round(SHARE * len(clean.pixels))
    others = others.take(slice(count))
    if kind == WRONG:
        shift = torch.randint(1, len(CLASSES), (count,), generator=draws)
        added = Pictures(others.pixels, (others.labels + shift) % len(CLASSES))
    elif kind == DIGITS:
        added = Pictures(digits[:count], others.labels)
    elif kind in FAULTS:
        added = Pictures(FAULTS[kind](others.pixels, draws), others.labels)
    else:
        copied = clean.take(slice(count))
        added = Pictures(DUPLICATES[kind](copied.pixels, draws), copied.labels)
    both = Pictures(torch.cat([clean.pixels, added.pixels]), torch.cat([clean.labels, added.labels]))
    is_fault = np.arange(len(both.labels)) >= len(clean.labels)
    if kind in DUPLICATES:
        is_fault[:count] = True
    return Planted(both, is_fault)


def write(planted: Planted, folder: Path, draws: torch.Generator) -> None:
    """Write the images in a random order, and which of them are faults."""
    names = []
    for place, index in enumerate(torch.randperm(len(planted.is_fault), generator=draws).tolist()):
        name = f"{CLASSES[int(planted.pictures.labels[index])]}/{place:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = planted.pictures.pixels[index].round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / name)
        if planted.is_fault[index]:
            names.append(name)
    folder.with_suffix(".json").write_text(json.dumps(sorted(names)))


def make_folders(folder: Path, data: FashionMNISTDataModule, kinds: Sequence[str], count: int) -> None:
    """Write the folder of each kind that is not there yet, with ``count`` clean test images."""
    garments, digits = pictures(data, data.probe_dataset()), pictures(data, data.ood_datasets()["mnist"])
    shuffled, digits = (one.take(_order(len(one.labels))) for one in (garments, digits))
    clean, others = shuffled.take(slice(count)), shuffled.take(slice(count, None))
    for kind in kinds:
        if not is_written(folder / kind):
            draws = torch.Generator().manual_seed((*KINDS, CLEAN).index(kind))
            write(plant(kind, clean, others, digits.pixels, draws), folder / kind, draws)


def make_reference(folder: Path, data: FashionMNISTDataModule, count: int) -> None:
    """Write random training images, none of which is in a folder of faults, where they are not there yet."""
    if is_written(folder):
        return
    garments = pictures(data, data.reference_dataset())
    chosen = garments.take(_order(len(garments.labels))[:count])
    write(Planted(chosen, np.zeros(count, dtype=bool)), folder, torch.Generator().manual_seed(0))


def is_written(folder: Path) -> bool:
    """Tell whether a folder is there as a whole."""
    return folder.with_suffix(".json").is_file()


def pictures(data: FashionMNISTDataModule, images: Samples) -> Pictures:
    """Pixels as they were before the DataModule normalised them."""
    assert isinstance(images, ImageTensors)
    config = data.preparation()["data_config"]
    return Pictures((images.images[:, 0] * config["std"][0] + config["mean"][0]) * 255.0, images.labels)


def _order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
