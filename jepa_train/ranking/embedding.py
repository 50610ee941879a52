"""The first pass: forward passes that give each image its embedding, compressed size and thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from jepa_monitor.density import require_real
from jepa_train.errors import ConfigurationError, one_line
from jepa_train.ranking.batches import DataSettings, Order
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.passes import PartsPass
from jepa_train.ranking.workspace import Workspace, vector_column, vectors

NOT_FINITE = "its embedding is not finite"


class EmbeddingPass(PartsPass):
    """Embed images, see :class:`PartsPass`. Parts hold names too, so that a table can be made without the images.

    Args:
        encoder: the encoder.
        size: K.
        workspace, kind, images, order, parts, settings, title: see :class:`PartsPass`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        size: int,
        workspace: Workspace,
        kind: str,
        images: FilesToRank,
        order: Order,
        parts: Sequence[int],
        settings: DataSettings,
        *,
        title: str,
    ) -> None:
        super().__init__(encoder.module, workspace, kind, images, order, parts, settings, title=title)
        self.size = size
        self.nested = images.listing.nested

    def rows(self, batch: dict[str, Any]) -> dict[str, pa.Array]:
        """Embeddings, NaN where a file is unreadable, and what the images' processes found."""
        readable = batch["readable"].cpu().numpy()
        z = np.full((len(readable), self.size), np.nan, dtype=np.float32)
        if readable.any():
            z[readable] = self.embed(batch["image"]).float().cpu().numpy()
        finite = np.asarray(np.isfinite(z).all(1))
        found = zip(batch["reason"], finite, strict=True)
        listing, indices = self.images.listing, batch["index"].tolist()
        return {
            "filename": pa.array(map(listing.filename, indices), pa.string()),
            "class": pa.array([listing.class_of(index) if self.nested else None for index in indices], pa.string()),
            "embedding": vector_column(z),
            "compressed_size": pa.array(batch["compressed_size"], pa.int64()),
            "thumbnail": batch["thumbnail"],
            "reason": pa.array(
                [reason or (None if finite else NOT_FINITE) for reason, finite in found],
                pa.string(),
            ),
        }


def listing_order(count: int, part_size: int) -> Order:
    """The order of all images as they are listed."""
    return Order(np.arange(count, dtype=np.int64), part_size)


def embedding_size(encoder: ImageEncoder) -> int:
    """Find K by embedding one blank picture.

    Raises:
        ConfigurationError: if the encoder does not give one vector a picture.
    """
    image = encoder.prepare(Image.new("RGB", (64, 64)))
    try:
        with torch.inference_mode():
            z = require_real(encoder.module(image[None]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"the encoder {encoder.name} cannot embed a picture: {one_line(error)}") from error
    if z.ndim != 2 or len(z) != 1 or not z.is_floating_point():
        raise ConfigurationError(
            f"the encoder {encoder.name} gives {tuple(z.shape)} of {z.dtype} for one picture, and must give (1, K) "
            "real numbers: pool its tokens or feature maps, such as by --pooling mean."
        )
    return z.shape[1]


def embeddings_at(workspace: Workspace, kind: str, order: Order, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embeddings (M, K) of the images at ascending ``indices`` of the listing, from parts in the listing's order."""
    numbers = np.unique(indices // order.part_size)
    found = []
    for number in numbers.tolist():
        rows = workspace.read(kind, number)
        z = vectors(rows["embedding"])
        found.append(z[indices[indices // order.part_size == number] - number * order.part_size])
    return np.concatenate(found)
