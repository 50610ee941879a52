"""Nearest neighbours by exact search, in blocks: no matrix of all distances is ever held.

They are written out, and run on the device of their tensors. On one CPU thread scikit-learn's, as fast or faster, lose
half of the digits where all embeddings share an offset (``benchmarks/solvers.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import require_whole
from .checks import finite_rows, require_between, require_embeddings, require_tensor

BLOCK = 2**23  # elements: 64 MiB in float64
SHARE, FEWEST = 1 / 40, 10  # of the points, and number of them, that are a neighbourhood


def neighbourhood(count: int) -> int:
    """Number of neighbours that are looked at where none is given: a fortieth of the points, at least 10.

    A fixed share is a fixed scale: more points do not bring the noise nearer, which has all K dimensions at its own.
    """
    return max(FEWEST, round(SHARE * count))


def nearest(queries: Tensor, points: Tensor, k: int, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances and indices of the k nearest points.

    Exact in float64, but for neighbours whose squared distances agree to 1e-14 of the squared norms, which may change
    places. Takes some 64 MiB beside its inputs in float64.

    Args:
        queries: (N, D).
        points: (M, D), all finite.
        k: number of neighbours, from 1 to M, or to M - 1 with ``own``.
        own: (N,) the index at which each query stands among the points; that point is left out.

    Returns:
        distances: (N, k) float64, the nearest first; NaN for a query that is not finite.
        indices: (N, k) int64 of the points.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for other shapes, if k is out of range, or a point is not finite.
    """
    points = require_embeddings(points, name="points")
    queries = require_embeddings(queries, size=points.shape[1], name="queries")
    require_between(1, len(points) - (own is not None), k=k)
    if own is not None and (
        require_tensor(own, name="own", shape="(N,)").shape != queries.shape[:1]
        or own.dtype != torch.int64
        or not bool(((own >= 0) & (own < len(points))).all())
    ):
        raise ValueError(f"own must be int64 indices of the points, one for each of {len(queries)} queries.")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("points must be finite: leave out those that are not.")
    queries, points = _centred(queries, points)
    # |x - y|^2 is |x|^2 - 2 (x y - |y|^2 / 2): the first is the same for all y
    found = largest_products(queries, points, k, offsets=-0.5 * points.square().sum(1), own=own)
    size = max(1, BLOCK // (k * points.shape[1]))  # rows whose k neighbours are held at once
    pairs = [pair for rows, _, index in found for pair in zip(rows.split(size), index.split(size), strict=True)]
    distances = torch.cat([torch.linalg.vector_norm(rows[:, None] - points[index], dim=2) for rows, index in pairs])
    exact, order = distances.sort(dim=1)
    return exact, torch.cat([index for _, index in pairs]).gather(1, order)


def knn_distance(z: Tensor, reference: Tensor, *, k: int = 10) -> Tensor:
    """Distance to the k-th nearest reference embedding: (N, D) and (M, D) -> (N,); low where the density is high.

    Plain distances: a sample that is also in the reference finds itself, at distance 0. As exact as :func:`nearest`.

    Args:
        z: (N, D).
        reference: (M, D); embeddings that are not finite are left out.
        k: number of the neighbour, from 1; the farthest where the reference has fewer.

    Returns:
        (N,) float64; NaN if the reference has no finite embedding.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for other shapes, or if k is no whole number of at least 1.
    """
    require_whole(1, k=k)
    points = finite_rows(require_embeddings(reference, name="reference embeddings"))
    z = require_embeddings(z, size=points.shape[1])
    if not len(points):
        return torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    return kth_distance(z, points, min(k, len(points)))


def kth_distance(queries: Tensor, points: Tensor, k: int, *, own: Tensor | None = None) -> Tensor:
    """Distance to the k-th nearest point alone, (N,): the last of what :func:`nearest` finds, with its arguments."""
    queries, points = _centred(queries, points)
    found = largest_products(queries, points, k, offsets=-0.5 * points.square().sum(1), own=own)
    return torch.cat([torch.linalg.vector_norm(rows - points[index[:, -1]], dim=1) for rows, _, index in found])


def largest_products(
    queries: Tensor, points: Tensor, k: int, *, offsets: Tensor | None = None, own: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Search the points whose inner products with a query are largest, in blocks of queries.

    Args:
        queries: (N, D).
        points: (M, D), in the precision of the queries.
        k: number of points, from 1 to M.
        offsets: (M,) added to the products.
        own: (N,) the index of a point that is left out for each query.

    Yields:
        rows of the queries (B, D), one block after the other, and of each row the k largest values (B, k), the largest
        first, and the indices of their points (B, k).
    """
    size = max(1, BLOCK // len(points))
    blocks = queries.split(size)
    for rows, left_out in zip(blocks, [None] * len(blocks) if own is None else own.split(size), strict=True):
        products = rows @ points.T if offsets is None else torch.addmm(offsets[None], rows, points.T)
        if left_out is not None:
            products.scatter_(1, left_out[:, None], -torch.inf)
        values, index = products.topk(k, dim=1)
        yield rows, values, index


def _centred(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 from the mean of the points: a common offset would cost digits."""
    centre = points.mean(0, dtype=torch.float64)
    return queries.double() - centre, points.double() - centre
