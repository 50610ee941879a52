"""Listed files as an encoder's input, with what the table says of each picture; an unreadable one has a reason."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from jepa_monitor.ranking import compressed_size
from jepa_train.data.transforms import to_rgb, without_ends
from jepa_train.errors import one_line
from jepa_train.ranking.listing import ImageListing
from jepa_train.ranking.preparation import PicturePreparation

THUMBNAIL = 64  # pixels
QUALITY = 80  # of the thumbnail's JPEG: about 1.5 kB
LONGEST = 160  # characters of a reason
REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "the file may not be read",
    errno.EPERM: "the file may not be read",
    errno.ELOOP: "the link leads to itself",
    errno.ENAMETOOLONG: "the name is too long",
}


class FilesToRank(Dataset[dict[str, Any]]):
    """Listed files by index, each with its image, compressed size and thumbnail, or the reason why it has none.

    Of an animation the first frame counts. A picture of up to twice ``PIL.Image.MAX_IMAGE_PIXELS`` (179 million) is
    read, one at a time in each process, with 4 bytes a pixel, and twice that where it must be turned or converted; a
    larger one is not.

    Args:
        listing: the files.
        prepare: a picture -> (C, H, W) float32; it gets upright RGB of 8 bit.
        background: color behind transparent pixels, where ``prepare`` does not say.
    """

    def __init__(
        self, listing: ImageListing, prepare: Callable[[Image.Image], Tensor], *, background: str = "white"
    ) -> None:
        self.listing = listing
        self.prepare = prepare
        self.background = prepare.background if isinstance(prepare, PicturePreparation) else background

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample of one file; it never raises.

        Returns:
            ``index``, and ``image`` (C, H, W) float32, ``compressed_size`` in bytes, ``thumbnail``, a JPEG of 64 x 64
            pixels that shows the whole picture, all ``None`` where there is a ``reason``.
        """
        sample: dict[str, Any] = {"index": index, "image": None, "compressed_size": None, "thumbnail": None}
        try:
            picture = read_picture(self.listing.path(index), self.background)
            image, pixels = self._prepared(picture)
            size = int(compressed_size(pixels[None], low=0.0, high=255.0, level=1)[0])
            return {**sample, "image": image, "compressed_size": size, "thumbnail": _thumbnail(picture), "reason": None}
        except Exception as error:  # a decoder raises anything, where bytes lead it astray
            return {**sample, "reason": reason_of(error)}

    def _prepared(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        """The encoder's input, and 8-bit pixels of the same size."""
        if isinstance(self.prepare, PicturePreparation):
            pixels = self.prepare.pixels(picture)
            return self.prepare.normalised(pixels), pixels
        image = self.prepare(picture)
        return image, pil_to_tensor(ImageOps.fit(without_ends(picture), (image.shape[-1], image.shape[-2])))


def read_picture(path: Path, background: str = "white") -> Image.Image:
    """Read a picture as a viewer shows it, upright, on a background, in RGB of 8 bit.

    Raises:
        OSError: if it is no file or cannot be opened.
        Exception: of any kind, if it is no whole picture.
    """
    with open(path, "rb", opener=_open_without_waiting) as file, warnings.catch_warnings():
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file of bytes")
        if not status.st_size:
            raise ValueError("the file is empty")
        warnings.simplefilter("ignore")  # of damaged tags, odd palettes, and sizes that are still read
        with Image.open(file) as picture:
            picture.load()
            return to_rgb(picture, background)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe would wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def reason_of(error: Exception) -> str:
    """Say why a file has no scores, without its name, which stands beside it in the table."""
    if isinstance(error, OSError) and error.errno in REASONS:
        return REASONS[error.errno]
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a kind that Pillow reads"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = (error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)) or type(
        error
    ).__name__
    return text[:LONGEST]


def _thumbnail(picture: Image.Image) -> bytes:
    small = ImageOps.pad(without_ends(picture), (THUMBNAIL, THUMBNAIL), method=Image.Resampling.BILINEAR, color="white")
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples of :class:`FilesToRank`; with none that is readable, ``image`` is empty.

    Returns:
        ``index`` (B,) int64, ``readable`` (B,) bool, ``image`` (R, C, H, W) of the R readable ones in their order, and
        lists of B for ``compressed_size``, ``thumbnail`` and ``reason``.
    """
    images = [image for image in _column(samples, "image") if image is not None]
    return {
        "index": torch.tensor(_column(samples, "index")),
        "image": torch.stack(images) if images else torch.empty(0),
        "readable": torch.tensor([image is not None for image in _column(samples, "image")]),
        **{name: _column(samples, name) for name in ("compressed_size", "thumbnail", "reason")},
    }


def _column(samples: Iterable[dict[str, Any]], name: str) -> list[Any]:
    return [sample[name] for sample in samples]
