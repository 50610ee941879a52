"""The nearest of all other ranked images, by their embeddings: duplicates and near-duplicates."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from jepa_train.ranking.neighbour_search import finite, search_of
from jepa_train.ranking.scores import nullable
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, Workspace


def write_nearest(workspace: Workspace, parts: list[int], share: Iterable[int], device: torch.device) -> None:
    """Search the nearest other image of each image of the parts, and compare the two where there are thumbnails.

    Args:
        workspace: has the embeddings, and thumbnails of files.
        parts: numbers of all parts that are searched.
        share: numbers of those whose images are looked up.
        device: where to compute.
    """
    pictures = Thumbnails(workspace, parts)
    search = search_of(workspace, parts, device, len(pictures.index))
    for number in share:
        index, z = finite(workspace, [number], device)
        every = workspace.read(EMBEDDINGS, number)["index"].to_numpy()
        best, found = search(z, index)
        distances, indices = np.full(len(every), np.nan), np.full(len(every), -1, dtype=np.int64)
        at = np.searchsorted(every, index.cpu().numpy())
        distances[at], indices[at] = best.cpu().numpy(), found.cpu().numpy()
        missing = indices < 0
        distances[missing] = np.nan
        columns = {
            "index": every,
            "nearest_index": pa.array(indices, mask=missing),
            "nearest_distance": nullable(distances),
        }
        if pictures.there:
            columns["nearest_difference"] = nullable(pictures.differences(every, indices))
        workspace.write(NEAREST, number, pa.table(columns))


class Thumbnails:
    """Thumbnails of images by index, read from their parts where they are wanted.

    Args:
        workspace: has the thumbnails.
        parts: numbers of the parts.

    Attributes:
        there: false where the images were no files.
    """

    def __init__(self, workspace: Workspace, parts: list[int]) -> None:
        self.workspace, self.parts = workspace, parts
        tables = [workspace.read(EMBEDDINGS, number) for number in parts]
        indices = [rows["index"].to_numpy() for rows in tables]
        self.there = all("thumbnail" in rows.column_names for rows in tables)
        self.sizes = [len(index) for index in indices]
        index = np.concatenate(indices) if indices else np.empty(0, dtype=np.int64)
        self.order = np.argsort(index, kind="stable")
        self.index = index[self.order]

    def differences(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
        """Root mean square differences (N,) of pairs of images, in steps of 8-bit pixels; NaN where one has none.

        Args:
            first, second: (N,) indices of the images; -1 for none.
        """
        pictures = self._of(np.unique(np.concatenate([first, second])))
        found = np.full(len(first), np.nan)
        for row, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            if one in pictures and other in pictures:
                found[row] = np.sqrt(np.square(_pixels(pictures[one]) - _pixels(pictures[other])).mean())
        return found

    def _of(self, wanted: NDArray[np.int64]) -> dict[int, bytes]:
        """Thumbnails by index, of those that have one."""
        wanted = wanted[np.isin(wanted, self.index)]
        places = self.order[np.searchsorted(self.index, wanted)]  # among the rows of all parts
        found: dict[int, bytes] = {}
        starts = np.cumsum([0, *self.sizes])
        for number, start, end in zip(self.parts, starts[:-1], starts[1:], strict=True):
            here = (places >= start) & (places < end)
            if here.any():
                kept = self.workspace.read(EMBEDDINGS, number)["thumbnail"].take(pa.array(places[here] - start))
                found |= dict(zip(wanted[here].tolist(), kept.to_pylist(), strict=True))
        return {index: thumbnail for index, thumbnail in found.items() if thumbnail is not None}


def _pixels(thumbnail: bytes) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(thumbnail)) as picture:
        return np.asarray(picture, dtype=np.float64)
