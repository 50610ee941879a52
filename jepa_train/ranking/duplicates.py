"""The nearest of all other ranked images, by their embeddings: duplicates and near-duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from jepa_monitor.density import nearest
from jepa_train.ranking.scores import nullable
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, Workspace, vectors

BLOCK = 16  # parts that are searched at a time


def write_nearest(workspace: Workspace, parts: list[int], share: Iterable[int], device: torch.device) -> None:
    """Search the nearest other image of each image of the parts, by exact search in blocks.

    Args:
        workspace: has the embeddings.
        parts: numbers of all parts that are searched.
        share: numbers of those whose images are looked up.
        device: where to compute.
    """
    for number in share:
        index, queries = _finite(workspace, [number], device)
        every = workspace.read(EMBEDDINGS, number)["index"].to_numpy()
        best = torch.full((len(queries),), torch.inf, dtype=torch.float64, device=device)
        found = torch.full((len(queries),), -1, dtype=torch.int64, device=device)
        for other, points in _blocks(workspace, parts, device):
            distance, place = _nearest(queries, index, points, other)
            nearer = distance < best
            best, found = torch.where(nearer, distance, best), torch.where(nearer, place, found)
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
        workspace.write(NEAREST, number, pa.table(columns))


def _blocks(workspace: Workspace, parts: list[int], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(parts), BLOCK):
        index, points = _finite(workspace, parts[start : start + BLOCK], device)
        if len(points):
            yield index, points


def _finite(workspace: Workspace, parts: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices (N,) and finite embeddings (N, K) of parts."""
    tables = [workspace.read(EMBEDDINGS, number) for number in parts]
    z = torch.cat([torch.from_numpy(np.array(vectors(rows["embedding"]))) for rows in tables]).to(device)
    index = torch.cat([torch.from_numpy(np.array(rows["index"].to_numpy())) for rows in tables]).to(device)
    finite = torch.isfinite(z).all(1)
    return index[finite], z[finite]


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
