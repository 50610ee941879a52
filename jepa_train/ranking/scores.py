"""Scores from embeddings alone, part by part: density of the embedding, Mahalanobis and neighbour distance."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_monitor.density import knn_distance, nearest
from jepa_monitor.ranking import Mahalanobis
from jepa_train.ranking.references import RankingReference
from jepa_train.ranking.workspace import EMBEDDINGS, SCORES, Workspace, vectors

K_NEAREST = 10


def write_scores(
    workspace: Workspace, reference: RankingReference, images: str, parts: Iterable[int], device: torch.device
) -> None:
    """Score the embeddings of parts; those of the reference by all others of it.

    Args:
        workspace: has the embeddings.
        reference: what is typical.
        images: identity of the listing that is ranked.
        parts: numbers of the parts.
        device: where to compute.
    """
    reference = reference.to(device)
    for number in parts:
        rows = workspace.read(EMBEDDINGS, number)
        indices = rows["index"].to_numpy()
        z = torch.from_numpy(vectors(rows["embedding"]).astype(np.float64)).to(device)
        places = torch.from_numpy(reference.places(indices, images)).to(device)
        scores = embedding_scores(z, reference, places)
        columns = {name: nullable(values.cpu().numpy()) for name, values in scores.items()}
        workspace.write(SCORES, number, pa.table({"index": rows["index"], **columns}))


def embedding_scores(z: Tensor, reference: RankingReference, places: Tensor) -> dict[str, Tensor]:
    """Scores of embeddings.

    Args:
        z: (N, K) float64.
        reference: what is typical, on the same device.
        places: (N,) place of each among the reference, -1 where it is none of it.

    Returns:
        (N,) for each column; NaN where an embedding is not finite, or where all of the reference are equal.
    """
    scores = {
        name: z.new_full((len(z),), torch.nan) for name in ("embedding_log_density", "mahalanobis", "knn_distance")
    }
    finite = torch.isfinite(z).all(1)
    for chosen, own in ((finite & (places < 0), None), (finite & (places >= 0), places)):
        if not bool(chosen.any()):
            continue
        rows, mine = z[chosen], None if own is None else own[chosen]
        scores["knn_distance"][chosen] = _knn(rows, reference.z, mine)
        if reference.mahalanobis is not None:
            distance = mahalanobis_distance(reference.mahalanobis, rows, None if mine is None else len(reference.z))
            scores["mahalanobis"][chosen] = distance
        if reference.density is not None:
            density = reference.density.log_density(rows) if mine is None else reference.density.leave_one_out(mine)
            scores["embedding_log_density"][chosen] = density
    return scores


def mahalanobis_distance(fit: Mahalanobis, z: Tensor, fitted_to: int | None = None) -> Tensor:
    """Distance to the mean in units of the shrunk covariance, (N, K) -> (N,).

    Args:
        fit: mean and covariance.
        z: embeddings.
        fitted_to: number of embeddings that they were fitted to, where z are some of these: each is then left out of
            the mean and the covariance (Sherman-Morrison), at the same shrinkage.
    """
    centred, factor = z - fit.mean, fit.factor
    if fitted_to is None:
        return _norms(factor, centred)
    others = fitted_to - 1
    # of n embeddings without one, centred c: n/(n-1) (S - c c^T / (n-1)); S is the covariance before shrinkage
    target = factor.square().sum() / len(factor) * torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    grown = factor @ factor.T * (1.0 + 1.0 / others) - target * (fit.shrinkage / others)
    squared = _norms(torch.linalg.cholesky(grown), centred).square()
    removed = (1.0 - fit.shrinkage) * fitted_to / others**2
    # an embedding that alone spans a direction is infinitely far once it is left out
    left = (1.0 - removed * squared).clamp_min(torch.finfo(squared.dtype).eps)
    return (squared / left).sqrt() * (fitted_to / others)


def nullable(values: NDArray[np.float64]) -> pa.Array:
    """A column in which NaN is null."""
    return pa.array(values, pa.float64(), from_pandas=True)


def _norms(factor: Tensor, centred: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.solve_triangular(factor, centred.T, upper=False).norm(dim=0)
    return norms


def _knn(z: Tensor, reference: Tensor, own: Tensor | None) -> Tensor:
    if own is None:
        return knn_distance(z, reference, k=K_NEAREST)
    return nearest(z, reference, min(K_NEAREST, len(reference) - 1), own=own)[0][:, -1]
