"""Listed files as an encoder's input, with what the table says of each picture; an unreadable one has a reason."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from jepa_monitor.ranking import compressed_size
from jepa_train.data.transforms import to_rgb
from jepa_train.errors import one_line
from jepa_train.ranking.listing import ImageListing
from jepa_train.ranking.preparation import PicturePreparation

THUMBNAIL = 64  # pixels


class FilesToRank(Dataset[dict[str, Any]]):
    """Listed files by index, each with image, compressed size and thumbnail, or the reason why it has none.

    Args:
        listing: the files.
        prepare: a picture -> (C, H, W) float32.
    """

    def __init__(self, listing: ImageListing, prepare: Callable[[Image.Image], Tensor]) -> None:
        self.listing = listing
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = dict.fromkeys(("image", "compressed_size", "thumbnail", "reason"))
        sample["index"] = index
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(self.listing.path(index)) as picture:
                    picture.load()
                image, pixels = self._prepared(picture)
                thumbnail = _thumbnail(picture)
        except Exception as error:
            sample["reason"] = one_line(error)
            return sample
        size = int(compressed_size(pixels[None], low=0.0, high=255.0)[0])
        return {**sample, "image": image, "compressed_size": size, "thumbnail": thumbnail}

    def _prepared(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        if isinstance(self.prepare, PicturePreparation):
            pixels = self.prepare.pixels(picture)
            return self.prepare.normalised(pixels), pixels
        image = self.prepare(picture)
        return image, torch.zeros(1)


def _thumbnail(picture: Image.Image) -> bytes:
    small = ImageOps.pad(to_rgb(picture), (THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples: ``image`` (R, C, H, W) of the R readable ones, ``readable`` (B,), lists of the rest."""
    images = [sample["image"] for sample in samples if sample["image"] is not None]
    return {
        "index": torch.tensor([sample["index"] for sample in samples]),
        "image": torch.stack(images) if images else torch.empty(0),
        "readable": torch.tensor([sample["image"] is not None for sample in samples]),
        **{key: [sample[key] for sample in samples] for key in ("compressed_size", "thumbnail", "reason")},
    }
