"""Any folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from jepa_train.data.base import ImageDataModule
from jepa_train.errors import ConfigurationError

EXTENSIONS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageFiles(Dataset[dict[str, Any]]):
    """Image files as RGB squares: the short side resized, the centre cropped, ImageNet normalisation.

    Args:
        paths: of readable images.
        image_size: height and width, in pixels.
    """

    def __init__(self, paths: Sequence[Path], *, image_size: int) -> None:
        self.paths = list(paths)
        folders = sorted({path.parent for path in self.paths})
        self._label_of = {folder: label for label, folder in enumerate(folders)}
        self._transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize(image_size, antialias=True),
                v2.CenterCrop(image_size),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self.paths[index]) as image:
            pixels: Tensor = self._transform(image.convert("RGB"))
        return {"image": pixels.as_subclass(Tensor), "label": self._label_of[self.paths[index].parent]}


class ImageFolderDataModule(ImageDataModule):
    """All images below a folder, flat or nested; the folder an image lies in is its label.

    Args:
        root: the folder.
        image_size: height and width that images are brought to, in pixels.
        probe_share: share of the images that is held out and measured, spread evenly over the sorted paths.
        batch_size: per process.
        num_workers: of each loader.
        seed: of the order of the training images.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 96,
        probe_share: float = 0.1,
        batch_size: int = 128,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(image_size, 3, batch_size, num_workers, seed)
        if not 0.0 < probe_share < 1.0:
            raise ConfigurationError(f"probe_share must lie between 0 and 1, got {probe_share}.")
        self.root = Path(root)
        self.probe_share = probe_share
        self._paths: list[Path] | None = None

    def make_train(self) -> ImageFiles:
        """All images but the probe."""
        probe = set(self._probe_paths())
        return ImageFiles([path for path in self._all_paths() if path not in probe], image_size=self.image_size)

    def make_probe(self) -> ImageFiles:
        """Every n-th image."""
        return ImageFiles(self._probe_paths(), image_size=self.image_size)

    def _all_paths(self) -> list[Path]:
        if self._paths is None:
            self._paths = readable_images(self.root)
        return self._paths

    def _probe_paths(self) -> list[Path]:
        return self._all_paths()[:: max(round(1.0 / self.probe_share), 2)]


def readable_images(root: Path) -> list[Path]:
    """Sorted paths of the images below a folder whose headers can be read; the others are named in one warning.

    Raises:
        ConfigurationError: if the folder does not exist or holds fewer than two readable images.
    """
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {root}: point --data.root at a folder of images.")
    candidates = sorted(path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    unreadable = [path for path in candidates if not _is_readable(path)]
    if unreadable:
        names = ", ".join(str(path.relative_to(root)) for path in unreadable[:10])
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        rank_zero_warn(f"{len(unreadable)} unreadable files are left out: {names}{more}.")
    readable = sorted(set(candidates) - set(unreadable))
    if len(readable) < 2:
        raise ConfigurationError(
            f"{root} holds {len(readable)} readable images ({', '.join(sorted(EXTENSIONS))}); training and probe need "
            "at least 2."
        )
    return readable


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
        return False
    return True
