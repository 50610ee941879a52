"""Searches of the nearest other image among many: exact ones in blocks, and by an index of faiss beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from math import sqrt
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from jepa_monitor.density import nearest
from jepa_train.ranking.workspace import EMBEDDINGS, Workspace, vectors

MOST_EXACT = 100_000  # images that are compared with each other without being asked for
BLOCK = 16  # parts that are searched at a time
A_LIST = 40  # embeddings that train one list of an index, as faiss advises
LISTS_A_ROOT, PROBES = 4, 32  # lists for the root of the number of images, and those that are looked through


class Search(Protocol):
    """A search of the nearest other image."""

    def __call__(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (N,) float64 and indices (N,) int64 of the nearest image other than its own; infinite, -1 for none.

        Args:
            z: (N, K) finite embeddings.
            index: (N,) index of the image of each.
        """
        ...


def has_faiss() -> bool:
    """Tell whether faiss is installed (the extra ``faiss``)."""
    return find_spec("faiss") is not None


def search_of(workspace: Workspace, parts: list[int], device: torch.device, count: int) -> Search:
    """Choose a search among the ``count`` images of parts: an exact one, or the index where there are many and faiss.

    Args:
        workspace: has the embeddings.
        parts: numbers of the parts.
        device: where exact searches compute; faiss's index is on the CPU.
        count: number of images.
    """
    if count > MOST_EXACT and has_faiss():
        return IndexSearch(workspace, parts, count)
    return ExactSearch(workspace, parts, device)


class ExactSearch:
    """Compare with all images, block by block, so that few embeddings are in memory at a time."""

    def __init__(self, workspace: Workspace, parts: list[int], device: torch.device) -> None:
        self.workspace, self.parts, self.device = workspace, parts, device

    def __call__(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Search, see :class:`Search`."""
        best = torch.full((len(z),), torch.inf, dtype=torch.float64, device=self.device)
        found = torch.full((len(z),), -1, dtype=torch.int64, device=self.device)
        for other, points in self._blocks():
            distance, place = _nearest(z, index, points, other)
            nearer = distance < best
            best, found = torch.where(nearer, distance, best), torch.where(nearer, place, found)
        return best, found

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.parts), BLOCK):
            index, points = finite(self.workspace, self.parts[start : start + BLOCK], self.device)
            if len(points):
                yield index, points


class IndexSearch:
    """Look through the lists of an inverted file of faiss that are next to an embedding.

    Distances are those of the embeddings, and equal embeddings are always found; a nearer image may be missed. All
    embeddings are in memory, 4 K bytes an image.
    """

    def __init__(self, workspace: Workspace, parts: list[int], count: int) -> None:
        import faiss  # an extra

        lists = max(1, min(round(LISTS_A_ROOT * sqrt(count)), count // A_LIST))
        step = max(1, count // (A_LIST * lists))
        sample = np.concatenate([z.numpy()[::step] for _, z in _each(workspace, parts)])
        self.index: Any = faiss.index_factory(sample.shape[1], f"IVF{lists},Flat")
        self.index.train(sample)
        faiss.ParameterSpace().set_index_parameter(self.index, "nprobe", PROBES)
        for index, z in _each(workspace, parts):
            self.index.add_with_ids(z.numpy(), index.numpy())

    def __call__(self, z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Search, see :class:`Search`."""
        squared, found = map(torch.from_numpy, self.index.search(z.cpu().numpy(), 2))
        column = (found[:, :1] == index.cpu()[:, None]).long()  # the second, where the first is the image itself
        place = found.gather(1, column)[:, 0]
        distance = squared.gather(1, column)[:, 0].double().clamp_min(0.0).sqrt()
        distance[place < 0] = torch.inf
        return distance.to(z.device), place.to(z.device)


def finite(workspace: Workspace, parts: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices (N,) and finite embeddings (N, K) of parts."""
    tables = [workspace.read(EMBEDDINGS, number) for number in parts]
    z = torch.cat([torch.from_numpy(np.array(vectors(rows["embedding"]))) for rows in tables]).to(device)
    index = torch.cat([torch.from_numpy(np.array(rows["index"].to_numpy())) for rows in tables]).to(device)
    good = torch.isfinite(z).all(1)
    return index[good], z[good]


def _each(workspace: Workspace, parts: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    return (finite(workspace, [number], torch.device("cpu")) for number in parts)


def _nearest(queries: Tensor, index: Tensor, points: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest of the points (M, K) that is another image: (N,) each; infinite if none."""
    own = torch.searchsorted(other, index).clamp_max(len(other) - 1)
    among = other[own] == index
    distance = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=queries.device)
    place = torch.full_like(index, -1)
    if bool((~among).any()):
        far, near = nearest(queries[~among], points, 1)
        distance[~among], place[~among] = far[:, 0], other[near[:, 0]]
    if bool(among.any()) and len(points) > 1:
        far, near = nearest(queries[among], points, 1, own=own[among])
        distance[among], place[among] = far[:, 0], other[near[:, 0]]
    return distance, place
