"""Pictures by index, whatever they are read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from jepa_train.data.base import ImageDataModule, ImageTensors, Samples
from jepa_train.data.folders import image_files
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.images import read_picture

UNLABELLED = -1
Labelled = tuple[Image.Image, int]


@dataclass(frozen=True)
class Pictures:
    """Pictures with labels, -1 where there is none.

    Attributes:
        count: number of pictures.
        get: a picture and its label by index.
    """

    count: int
    get: Callable[[int], Labelled]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Labelled:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.get(index)

    def take(self, indices: Sequence[int]) -> Pictures:
        """The pictures at these places, in their order."""
        return Pictures(len(indices), lambda index: self.get(indices[index]))

    def changed(self, change: Callable[[Image.Image, int], Image.Image]) -> Pictures:
        """The same, each changed by a function of itself and its index."""

        def get(index: int) -> Labelled:
            picture, label = self.get(index)
            return change(picture, index), label

        return Pictures(self.count, get)


def of_tensors(samples: Samples, data: ImageDataModule) -> Pictures:
    """Pictures of 8 bit from images in memory, which a DataModule has normalised."""
    assert isinstance(samples, ImageTensors)
    config = data.preparation()["data_config"]
    mean, deviation = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))

    def get(index: int) -> Labelled:
        pixels = ((samples.images[index] * deviation + mean) * 255.0).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(pixels.movedim(0, -1).squeeze(-1).numpy()), int(samples.labels[index])

    return Pictures(len(samples), get)


def of_folder(folder: Path, what: str) -> Pictures:
    """Every picture below a folder, without labels.

    Raises:
        ConfigurationError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{what} were not found: put the pictures into {folder}, in any folders below it.")
    paths = image_files(folder).paths
    if not paths:
        raise ConfigurationError(f"{what} were not found: {folder} holds no pictures.")
    return Pictures(len(paths), lambda index: (read_picture(folder / paths[index]), UNLABELLED))


def of_list(listing: Path, folder: Path, what: str) -> Pictures:
    """Pictures of a list in OpenOOD's format: a line of a path, relative to a folder, a blank, and a whole number.

    Raises:
        ConfigurationError: if there is no such file or folder, a line is no such line, or the first picture is missing.
    """
    for path in (listing, folder):
        if not path.exists():
            raise ConfigurationError(f"{what} were not found: OpenOOD's layout has them by {path}, which is missing.")
    lines = [line.rsplit(" ", 1) for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        if len(line) != 2 or not line[1].lstrip("-").isdigit():
            raise ConfigurationError(f"line {number} of {listing} is not a path and a label with a blank between them.")
    if not lines:
        raise ConfigurationError(f"{what} were not found: {listing} is empty.")
    if not (folder / lines[0][0]).is_file():
        raise ConfigurationError(f"{what} were not found: {listing} lists {folder / lines[0][0]}, which is missing.")
    return Pictures(len(lines), partial(_listed, folder, lines))


def _listed(folder: Path, lines: Sequence[Sequence[str]], index: int) -> Labelled:
    path, label = lines[index]
    return read_picture(folder / path), int(label)
