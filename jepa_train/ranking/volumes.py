"""The second pass: volumes of Jacobians, from r-dimensional rows or exact, as images are listed or by density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from jepa_monitor.density import (
    is_imprecise,
    jacobian_gram,
    leading_volume,
    log_singular_values,
    map_grams,
    subspace_rows,
)
from jepa_monitor.density.volume import is_clipped
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.batches import DataSettings, Order
from jepa_train.ranking.columns import Wanted
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.passes import PartsPass
from jepa_train.ranking.references import FEWEST_CALIBRATION, RankingReference
from jepa_train.ranking.scores import nullable
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.workspace import MEASURED, SCORES, VOLUMES, Workspace

Estimator = Literal["auto", "exact", "subspace"]
VOLUMES_A_PART, FEWEST = 16, 8  # parts of volumes for one of embeddings; images


def estimator_for(wanted: Wanted, estimator: Estimator) -> Estimator:
    """The estimator that is asked for, by itself or by columns that need all singular values.

    Raises:
        ConfigurationError: where these contradict each other.
    """
    by_score = wanted.explicit and wanted.needs("exact volume")
    if by_score and estimator == "subspace":
        raise ConfigurationError(
            "jepa_score needs all singular values, which the estimator subspace does not have: leave out --estimator, "
            "or jepa_score of --scores."
        )
    return "exact" if by_score else estimator


def chooses_exact(estimator: Estimator, reference: RankingReference) -> bool:
    """Tell whether volumes are exact, from all K rows of the Jacobian.

    Args:
        estimator: as asked for.
        reference: whose rank r the volume has.

    Raises:
        ConfigurationError: where the estimator that is asked for cannot be had.
    """
    if estimator == "exact" or reference.density is None:
        return True
    rank, size = reference.density.rank, reference.z.shape[1]
    few = len(reference.z) <= subspace_rows(rank, size) or len(reference.z) < FEWEST_CALIBRATION
    if estimator == "subspace" and few:
        raise ConfigurationError(
            f"the estimator subspace needs more than the {len(reference.z)} reference embeddings there are: rank more "
            "images, give a larger --reference, or leave out --estimator."
        )
    return few or (estimator == "auto" and size <= 2 * rank + 4)


class VolumePass(PartsPass):
    """Measure volumes of images whose embeddings are finite, see :class:`PartsPass`.

    Args:
        encoder: the encoder.
        reference: its rank r, and the rows of volumes; exact ones where it has no subspace.
        workspace, images, order, parts, settings, seconds: see :class:`PartsPass`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        reference: RankingReference,
        workspace: Workspace,
        images: FilesToRank,
        order: Order,
        parts: Sequence[int],
        settings: DataSettings,
        *,
        seconds: float | None = None,
    ) -> None:
        title = "Volumes"
        super().__init__(
            encoder.module, workspace, VOLUMES, images, order, parts, settings, title=title, seconds=seconds
        )
        assert reference.density is not None
        self.rank, self.reference = reference.density.rank, reference

    def on_predict_start(self) -> None:
        """Move what volumes need beside the encoder."""
        self.reference = self.reference.to(self.device)

    def rows(self, batch: dict[str, Any]) -> dict[str, pa.Array]:
        """Volumes, NaN where a file became unreadable or a Jacobian is not finite."""
        readable, x = batch["readable"].cpu().numpy(), batch["image"]
        values = self._measured(x) if len(x) else torch.empty(0, 4, dtype=torch.float64)
        columns = np.full((len(readable), 4), np.nan)
        columns[readable] = values.cpu().numpy()
        return {name: nullable(column) for name, column in zip(MEASURED, columns.T, strict=True)}

    def _measured(self, x: Tensor) -> Tensor:
        """Volume, JEPA-SCORE, clipped of the r leading singular values, imprecise: (B, C, H, W) -> (B, 4)."""
        subspace = self.reference.subspace
        if subspace is None:
            size = x[0].numel()
            parts = map_grams(lambda gram, z: self._of_spectrum(gram, x.dtype, size), self.module, x)
            return torch.cat(parts)
        rows = subspace.rows(self.embed(x).double())
        return self._of_spectrum(jacobian_gram(self.module, x, rows=rows), x.dtype, None)

    def _of_spectrum(self, gram: Tensor, dtype: torch.dtype, input_size: int | None) -> Tensor:
        values = log_singular_values(gram, input_size=input_size)
        return measured(values, self.rank, dtype, whole=input_size is not None)


def measured(log_singular: Tensor, rank: int, dtype: torch.dtype, *, whole: bool) -> Tensor:
    """Volume, JEPA-SCORE, number of the r leading singular values at the clip, imprecise: (B, 4), as ``MEASURED``.

    Args:
        log_singular: (B, L) nats, largest first.
        rank: r, from 1 to L.
        dtype: precision of the Jacobian.
        whole: these are all singular values; else there is no JEPA-SCORE.
    """
    leading = log_singular[:, :rank]
    score = log_singular.sum(1) if whole else torch.full_like(leading[:, 0], torch.nan)
    clipped, imprecise = is_clipped(leading).sum(1), is_imprecise(leading, dtype)
    return torch.stack([leading_volume(log_singular, rank), score, clipped, imprecise], 1)


def volume_part_size(part_size: int) -> int:
    """Images a part of volumes, which cost more than embeddings: a sixteenth, but at least 8, of ``part_size``."""
    return min(part_size, max(FEWEST, part_size // VOLUMES_A_PART))


def volume_order(
    workspace: Workspace, parts: Sequence[int], part_size: int, *, lowest_first: bool, shard: Shard
) -> Order:
    """The order of the images that have a finite embedding: as they are listed, or by their density.

    Args:
        workspace: has the scores.
        parts: numbers of the parts of scores of this shard.
        part_size: images a part of volumes.
        lowest_first: begin with the lowest density of the embedding.
        shard: numbers parts of volumes so that no two shards have the same.
    """
    tables = [workspace.read(SCORES, number).select(["index", "embedding_log_density"]) for number in parts]
    scores = pa.concat_tables(tables).to_pydict() if tables else {"index": [], "embedding_log_density": []}
    index = np.array(scores["index"], dtype=np.int64)
    density = np.array(scores["embedding_log_density"], dtype=np.float64)
    index, density = index[np.isfinite(density)], density[np.isfinite(density)]
    if lowest_first:
        index = index[np.argsort(density, kind="stable")]
    return Order(index, part_size, first=shard.number - 1, step=shard.of)
