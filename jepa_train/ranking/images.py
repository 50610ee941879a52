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

import pyarrow as pa
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from jepa_train.data.transforms import to_rgb, without_ends
from jepa_train.errors import one_line
from jepa_train.ranking.listing import ImageListing
from jepa_train.ranking.preparation import PicturePreparation

THUMBNAIL = 64  # pixels
QUALITY = 80  # of the thumbnail's JPEG: about 1.5 kB
SPARE = 2.0  # a thumbnail is drawn from pixels this much finer, not from all of a photograph's
CODEC = "zstd"
EFFORT = 1  # of zstd: 8 times as fast as the least of zlib, and ranks pictures much alike (docs/ranking/files.md)
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
        prepare: a picture -> (C, H, W) float32; it gets upright RGB of 8 bit. Of a :class:`PicturePreparation` samples
            have the 8-bit pixels, a quarter of the bytes, and :meth:`inputs` does the rest where the encoder is.
        background: color behind transparent pixels, where ``prepare`` does not say.
        described: samples have a compressed size and a thumbnail.
    """

    def __init__(
        self,
        listing: ImageListing,
        prepare: Callable[[Image.Image], Tensor],
        *,
        background: str = "white",
        described: bool = True,
    ) -> None:
        self.listing = listing
        self.prepare = prepare
        self.described = described
        self.background = prepare.background if isinstance(prepare, PicturePreparation) else background

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample of one file; it never raises.

        Returns:
            ``index``, and ``image`` (C, H, W), of which :meth:`inputs` makes the encoder's input, ``compressed_size``
            in bytes, ``thumbnail``, a JPEG of 64 x 64 pixels that shows the whole picture, all ``None`` where there is
            a ``reason``.
        """
        nothing: dict[str, Any] = {"index": index, "image": None, "compressed_size": None, "thumbnail": None}
        try:
            picture = read_picture(self.listing.path(index), self.background)
            image, pixels = self._prepared(picture)
            found: dict[str, Any] = {"image": image, "reason": None}
            if self.described:
                found |= {"compressed_size": compressed_size(pixels), "thumbnail": _thumbnail(picture)}
            return nothing | found
        except Exception as error:  # a decoder raises anything, where bytes lead it astray
            return nothing | {"reason": reason_of(error)}

    def inputs(self, images: Tensor) -> Tensor:
        """The encoder's inputs (B, C, H, W) float32, of ``image`` of samples, on their device."""
        if isinstance(self.prepare, PicturePreparation) and len(images):
            return self.prepare.normalised(images)
        return images

    def _prepared(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        """Image of a sample, and its 8-bit pixels."""
        if isinstance(self.prepare, PicturePreparation):
            pixels = self.prepare.pixels(picture).contiguous()
            return pixels, pixels
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


def compressed_size(pixels: Tensor) -> int:
    """Bytes of 8-bit pixels (C, H, W) after zstd: how complex an image is."""
    codec = pa.Codec(CODEC, compression_level=EFFORT)
    return codec.compress(pa.py_buffer(pixels.contiguous().numpy())).size  # type: ignore[no-any-return]  # untyped


def _thumbnail(picture: Image.Image) -> bytes:
    whole = without_ends(picture)
    width, height = (max(1, round(side * THUMBNAIL / max(whole.size))) for side in whole.size)
    small = whole.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=SPARE)
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    square.paste(small, ((THUMBNAIL - width) // 2, (THUMBNAIL - height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples of :class:`FilesToRank`; with none that is readable, ``image`` is empty.

    Returns:
        ``index`` (B,) int64, ``readable`` (B,) bool, ``image`` (R, C, H, W) of the R readable ones in their order,
        lists of B for ``compressed_size`` and ``reason``, and an array of B for ``thumbnail``.
    """
    images = [image for image in _column(samples, "image") if image is not None]
    return {
        "index": torch.tensor(_column(samples, "index")),
        "image": torch.stack(images) if images else torch.empty(0),
        "readable": torch.tensor([image is not None for image in _column(samples, "image")]),
        **{name: _column(samples, name) for name in ("compressed_size", "reason")},
        # in a list, Lightning would look for tensors in each byte of each
        "thumbnail": pa.array(_column(samples, "thumbnail"), pa.binary()),
    }


def _column(samples: Iterable[dict[str, Any]], name: str) -> list[Any]:
    return [sample[name] for sample in samples]
