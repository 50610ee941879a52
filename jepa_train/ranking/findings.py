"""Warnings of a ranking: sentences with their number, each from one function, of what makes its scores doubtful."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_monitor.gaussianity import effective_rank
from jepa_monitor.ranking import spearman
from jepa_train.ranking.columns import Wanted
from jepa_train.ranking.references import FEWEST_DIFFERENT, RankingReference, is_collapsed
from jepa_train.ranking.table import NOT_MEASURED, numbers

FOLLOWS = 0.7  # Spearman with the compressed size, above which a score is one of complexity
PARALLEL = 0.98  # mean cosine of the embeddings of two images
DOMINATES = 0.9  # share of the variance in one coordinate
FAITHFUL = 0.95  # Spearman of a subspace with exact volumes
FEW_DIRECTIONS = 0.02  # effective rank as a share of K
COPIES = 1e-5  # distance to the nearest, as a share of the median


@dataclass(frozen=True)
class Facts:
    """All that warnings are about.

    Attributes:
        table: the table.
        wanted: columns that were asked for.
        reference: what is typical; ``None`` where no column needs it.
        clipped: (N,) singular values of each image that were clipped among the r leading ones; NaN without volume.
        imprecise: (N,) 1 where rounding may move a volume by more than 0.1 nats, 0 where not; NaN without volume.
    """

    table: pa.Table
    wanted: Wanted
    reference: RankingReference | None
    clipped: NDArray[np.float64]
    imprecise: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.table.num_rows)

    @property
    def size(self) -> int:
        """K; 0 where it is not known."""
        return 0 if self.reference is None else self.reference.z.shape[1]

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Numbers of a column, NaN where they are missing; ``None`` where there is no such column."""
        return numbers(self.table[name]) if name in self.table.column_names else None


def warnings_of(facts: Facts) -> list[str]:
    """Sentences for the summary, the gravest first."""
    return [sentence for finding in FINDINGS if (sentence := finding(facts)) is not None]


def collapsed(facts: Facts) -> str | None:
    """Find embeddings that are one point, or vary in few directions."""
    if facts.reference is None:
        return None
    z = facts.reference.z
    if is_collapsed(z):
        share = float((z - z.mean(0)).square().sum() / z.square().sum().clamp_min(torch.finfo(z.dtype).tiny))
        return (
            "The encoder has collapsed: all reference embeddings are one point up to rounding (variance "
            f"{share:.0e} of the mean square), so there is no density, volume or percentile."
        )
    found, least = effective_rank(z), max(1.5, FEW_DIRECTIONS * facts.size)
    if facts.size > 2 and found < least:
        return (
            f"The encoder has nearly collapsed: its embeddings vary in {found:.1f} of {facts.size} directions "
            "(effective rank)."
        )
    return None


def parallel(facts: Facts) -> str | None:
    """Find embeddings that all point the same way, as of a wrong pooling or preparation."""
    if facts.reference is None or facts.reference.density is None:
        return None
    directions = torch.nn.functional.normalize(facts.reference.z)
    count = len(directions)
    cosine = float((directions.sum(0).square().sum() - count) / (count * (count - 1)))
    if cosine < PARALLEL:
        return None
    return (
        f"The embeddings of two images have a mean cosine of {cosine:.3f}: they are nearly parallel, as with a wrong "
        "--pooling or preparation of images."
    )


def dominated(facts: Facts) -> str | None:
    """Find one coordinate that has nearly all variance."""
    if facts.reference is None or facts.reference.density is None or facts.size < 3:
        return None
    variances = facts.reference.z.var(0)
    share = float(variances.max() / variances.sum())
    if share < DOMINATES:
        return None
    return (
        f"Coordinate {int(variances.argmax())} of {facts.size} has {share:.0%} of the embeddings' variance, and "
        "decides all distances: another --pooling may have none like it."
    )


def few_embeddings(facts: Facts) -> str | None:
    """Find a reference that is small beside K, or too small for neighbours."""
    if facts.reference is None or is_collapsed(facts.reference.z):
        return None
    count, remedy = len(facts.reference.z), "rank more images, or give a larger --reference"
    different = _different(facts.reference.z) if count < 10 * FEWEST_DIFFERENT else count
    if different < FEWEST_DIFFERENT:
        singular = facts.reference.density is None
        instead = "there is no density" if singular else "its density is one Gaussian with a shrunk covariance"
        return (
            f"The reference has {different} different embeddings, fewer than the {FEWEST_DIFFERENT} that an intrinsic "
            f"dimension needs: {instead}; {remedy}."
        )
    if count <= facts.size:
        fit = facts.reference.mahalanobis
        shrunk = "" if fit is None else f", so its covariance is shrunk by {fit.shrinkage:.0%}"
        return (
            f"K = {facts.size} is above the reference's size of {count} embeddings{shrunk}, and neighbours are far: "
            f"{remedy}."
        )
    return None


def no_gaussian(facts: Facts) -> str | None:
    """Find a covariance that stays singular."""
    lacks = facts.reference is not None and facts.reference.density is not None and facts.reference.mahalanobis is None
    if not lacks or facts.column("mahalanobis") is None:
        return None
    return f"The covariance of the {facts.size} coordinates is singular after shrinkage: there is no mahalanobis."


def follows_complexity(facts: Facts) -> str | None:
    """Find a score that tracks the compressed size."""
    size = facts.column("compressed_size")
    name = next((name for name in ("log_density", "embedding_log_density") if _has_numbers(facts, name)), None)
    if size is None or name is None:
        return None
    score = facts.column(name)
    assert score is not None
    both = np.isfinite(size) & np.isfinite(score)
    rho = spearman(score[both], size[both])
    if not abs(rho) >= FOLLOWS:
        return None
    return (
        f"{name} follows the complexity of images: its Spearman with compressed_size is {rho:.2f}, and from {FOLLOWS} "
        "on a ranking may say little else."
    )


def clips(facts: Facts) -> str | None:
    """Find volumes with singular values at the clip."""
    images = int((facts.clipped > 0).sum())
    if not images:
        return None
    return (
        f"Of {images} images, singular values among the r leading ones are below 1e-6 and clipped "
        f"({np.nanmax(facts.clipped):.0f} at most): their volumes are too large by an unknown amount."
    )


def imprecise(facts: Facts) -> str | None:
    """Find volumes that rounding moves."""
    images = int((facts.imprecise > 0).sum())
    return f"Rounding may move the volumes of {images} images by more than 0.1 nats." if images else None


def unfaithful(facts: Facts) -> str | None:
    """Find a subspace that does not rank as exact volumes do."""
    subspace = None if facts.reference is None else facts.reference.subspace
    if subspace is None or not subspace.held_out_spearman < FAITHFUL:
        return None
    return (
        f"Volumes by {subspace.directions} rows rank 16 images with a Spearman of {subspace.held_out_spearman:.2f} "
        "with exact ones: add --estimator exact."
    )


def lacks_jepa_score(facts: Facts) -> str | None:
    """Say why there is no jepa_score."""
    score = facts.column("jepa_score")
    if score is None or np.isfinite(score).any() or facts.reference is None or facts.reference.subspace is None:
        return None
    rows = facts.reference.subspace.directions
    return (
        f"There is no jepa_score: it needs all {facts.size} singular values, and volumes are from {rows} rows; ask for "
        "it by --scores."
    )


def incomplete(facts: Facts) -> str | None:
    """Say of how many images volumes were measured, where some have none."""
    density, embedded = facts.column("log_density"), facts.column("embedding_log_density")
    if density is None or embedded is None:
        return None
    measured, possible = int(np.isfinite(facts.clipped).sum()), int(np.isfinite(embedded).sum())
    if measured >= possible:
        return None
    if NOT_MEASURED not in facts.table["reason"].to_pylist():
        return f"Volumes of {measured} of {possible} images were measured: reason says why not of the others."
    return (
        f"The budget sufficed for the volumes of {measured} of {possible} images: log_density and its percentiles are "
        "among these; the same command without --budget measures the others."
    )


def unreadable(facts: Facts) -> str | None:
    """Count files without an embedding."""
    embedded = facts.column("compressed_size")
    if embedded is None or np.isfinite(embedded).all():
        return None
    missing = int((~np.isfinite(embedded)).sum())
    return f"{missing} of {facts.count} files could not be read: reason says why."


def not_finite(facts: Facts) -> str | None:
    """Count embeddings that are not finite."""
    reasons = facts.table["reason"].to_pylist()
    bad = sum(reason is not None and "not finite" in reason for reason in reasons)
    return f"{bad} of {facts.count} images have an embedding or a Jacobian that is not finite." if bad else None


def not_searched(facts: Facts) -> str | None:
    """Say that near-duplicates were not searched."""
    if not facts.wanted.needs("neighbours") or "nearest_distance" in facts.table.column_names:
        return None
    return (
        f"Near-duplicates were not searched, because an exact search compares each of the {facts.count} images with "
        "all: install faiss-cpu for an index, or ask for it by --scores nearest_distance."
    )


def duplicates(facts: Facts) -> str | None:
    """Count exact duplicates."""
    distance = facts.column("nearest_distance")
    if distance is None or not np.isfinite(distance).any():
        return None
    copies = int((distance <= COPIES * np.nanmedian(distance)).sum())
    return f"{copies} images have a copy among the others: nearest_filename names it." if copies else None


def _different(z: Tensor) -> int:
    return len(torch.unique(z, dim=0))


def _has_numbers(facts: Facts, name: str) -> bool:
    column = facts.column(name)
    return column is not None and bool(np.isfinite(column).any())


FINDINGS: tuple[Callable[[Facts], str | None], ...] = (
    collapsed,
    parallel,
    dominated,
    few_embeddings,
    no_gaussian,
    follows_complexity,
    clips,
    imprecise,
    unfaithful,
    lacks_jepa_score,
    incomplete,
    unreadable,
    not_finite,
    not_searched,
    duplicates,
)
