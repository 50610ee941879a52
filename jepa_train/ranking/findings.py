"""Warnings of a ranking: sentences with their number, each from one function, of what makes its scores doubtful."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_monitor.gaussianity import effective_rank
from jepa_monitor.ranking import spearman
from jepa_train.errors import counted
from jepa_train.ranking.columns import ALWAYS, BY_NAME, Wanted
from jepa_train.ranking.embedding import NOT_FINITE
from jepa_train.ranking.reasons import NO_JACOBIAN, NOT_MEASURED
from jepa_train.ranking.references import FEWEST_DIFFERENT, RankingReference, is_collapsed
from jepa_train.ranking.table import numbers

FOLLOWS = 0.7  # Spearman with the compressed size, above which a score is one of complexity
PARALLEL = 0.98  # mean cosine of the embeddings of two images
DOMINATES = 0.9  # share of the variance in one coordinate
FAITHFUL = 0.95  # Spearman of a subspace with exact volumes
FEW_DIRECTIONS = 0.02  # effective rank as a share of K
COPIES = 1e-5  # distance to the nearest, as a share of the median
MUCH = 0.005  # shrinkage of a covariance that is worth a word
SAME = 1.0  # difference of thumbnails of copies, of 255
FEWEST_TO_FOLLOW = 20  # images, of fewer of which a Spearman is large by chance
FROM_LOG_DENSITY = ("percentile", "class_percentile", "doubt")


@dataclass(frozen=True)
class Facts:
    """All that warnings are about, whatever columns the table has.

    Attributes:
        known: all that was computed, see :func:`assemble`; of RankingWriter's samples no sizes, as they are no files.
        wanted: columns that were asked for.
        reference: what is typical; ``None`` where no column needs it.
    """

    known: pa.Table
    wanted: Wanted
    reference: RankingReference | None

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.known.num_rows)

    @property
    def size(self) -> int:
        """K; 0 where it is not known."""
        return 0 if self.reference is None else self.reference.z.shape[1]

    @property
    def ranks_by(self) -> list[str]:
        """Scores that were asked for; log_density also where something is made of it."""
        asked = {"log_density" if name in FROM_LOG_DENSITY else name for name in self.wanted.names}
        return [name for name, column in BY_NAME.items() if name in asked and column.typical]

    def column(self, name: str) -> NDArray[np.float64] | None:
        """Numbers of a column, NaN where they are missing; ``None`` where it was not computed."""
        return numbers(self.known[name]) if name in self.known.column_names else None


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
    most = min(facts.size, _different(z) - 1)  # through few points there are no more directions
    found, least = effective_rank(z), max(1.5, FEW_DIRECTIONS * most)
    if most > 2 and found < least:
        return (
            f"The encoder has nearly collapsed: its embeddings vary in {found:.1f} of {most} directions "
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
    different = _different(facts.reference.z)
    if different < FEWEST_DIFFERENT:
        singular = facts.reference.density is None
        instead = "there is no density" if singular else "its density is one Gaussian with a shrunk covariance"
        return (
            f"The reference has {different} different embeddings, fewer than the {FEWEST_DIFFERENT} that an intrinsic "
            f"dimension needs: {instead}; {remedy}."
        )
    if count <= facts.size:
        fit = facts.reference.mahalanobis
        shrinkage = 0.0 if fit is None else fit.shrinkage
        shrunk = f"its covariance is shrunk by {shrinkage:.0%}, and " if shrinkage >= MUCH else ""
        return (
            f"The reference has {count} embeddings, no more than their K = {facts.size} coordinates: {shrunk}"
            f"neighbours are far; {remedy}."
        )
    return None


def no_gaussian(facts: Facts) -> str | None:
    """Find a covariance that stays singular."""
    lacks = facts.reference is not None and facts.reference.density is not None and facts.reference.mahalanobis is None
    if not lacks or "mahalanobis" not in facts.wanted.names:
        return None
    return f"The covariance of the {facts.size} coordinates is singular after shrinkage: there is no mahalanobis."


def follows_complexity(facts: Facts) -> str | None:
    """Find scores that track the compressed size."""
    size = facts.column("compressed_size")
    if size is None:
        return None
    correlated = {name: _correlation(facts.column(name), size) for name in facts.ranks_by}
    found = [f"{name} ({rho:.2f})" for name, rho in correlated.items() if abs(rho) >= FOLLOWS]
    if not found:
        return None
    return (
        f"{_listed(found)} {'follows' if len(found) == 1 else 'follow'} the complexity of images, by the Spearman with "
        f"compressed_size: from {FOLLOWS} on, a ranking may say little else."
    )


def clips(facts: Facts) -> str | None:
    """Find volumes with singular values at the clip."""
    clipped = facts.column("clipped")
    if clipped is None or not (clipped > 0).any():
        return None
    images, most = int((clipped > 0).sum()), counted(int(np.nanmax(clipped)), "singular value")
    return (
        f"The volumes of {counted(images, 'image')} are too large by an unknown amount: up to {most} of the r largest "
        "were below 1e-6 and count as that."
    )


def imprecise(facts: Facts) -> str | None:
    """Find volumes that rounding moves."""
    found = facts.column("imprecise")
    if found is None or not (found > 0).any():
        return None
    return f"Rounding may move the volumes of {counted(int((found > 0).sum()), 'image')} by more than 0.1 nats."


def unfaithful(facts: Facts) -> str | None:
    """Find a subspace that does not rank as exact volumes do."""
    subspace = facts.reference.subspace if facts.reference is not None and facts.wanted.volumes else None
    if subspace is None or not subspace.held_out_spearman < FAITHFUL:
        return None
    return (
        f"Volumes by {subspace.directions} rows rank 16 images with a Spearman of {subspace.held_out_spearman:.2f} "
        "with exact ones: rank with --estimator exact into another --output."
    )


def lacks_jepa_score(facts: Facts) -> str | None:
    """Say why there is no jepa_score."""
    asked = facts.reference is not None and "jepa_score" in facts.wanted.names
    if not asked or facts.reference is None or facts.reference.subspace is None:
        return None
    rows = facts.reference.subspace.directions
    return (
        f"There is no jepa_score: it needs all {facts.size} singular values, and volumes are from {rows} rows; rank "
        "with --scores jepa_score into another --output."
    )


def empty(facts: Facts) -> str | None:
    """Name columns in which no image has a value, beside those that have a warning of their own."""
    said = {"jepa_score": lacks_jepa_score, "mahalanobis": no_gaussian}
    found = [
        name
        for name in facts.wanted.names
        if name in facts.known.column_names
        and name not in ALWAYS
        and facts.known[name].null_count == facts.count
        and (name not in said or said[name](facts) is None)
    ]
    return f"No image has a value of {_listed(found)}: reason says why." if found else None


def incomplete(facts: Facts) -> str | None:
    """Say of how many images volumes were measured, where some have none."""
    clipped, embedded = facts.column("clipped"), facts.column("embedding_log_density")
    if clipped is None or embedded is None:
        return None
    measured, possible = int(np.isfinite(clipped).sum()), int(np.isfinite(embedded).sum())
    if measured >= possible:
        return None
    of_all = f"{measured} of {counted(possible, 'image')}"
    if not _reasons_with(facts, NOT_MEASURED):
        return f"Volumes of {of_all} were measured: reason says why not of the others."
    return (
        f"The budget sufficed for the volumes of {of_all}: percentiles and doubt compare these alone; the same command "
        "without --budget measures the others."
    )


def unreadable(facts: Facts) -> str | None:
    """Count files without an embedding."""
    size = facts.column("compressed_size")
    if size is None or np.isfinite(size).all():
        return None
    missing = int((~np.isfinite(size)).sum())
    return f"{missing} of {counted(facts.count, 'file')} could not be read: reason says why."


def not_finite(facts: Facts) -> str | None:
    """Count embeddings and Jacobians that are not finite."""
    bad = _reasons_with(facts, NOT_FINITE) + _reasons_with(facts, NO_JACOBIAN)
    if not bad:
        return None
    has = "has" if bad == 1 else "have"
    return f"{bad} of {counted(facts.count, 'image')} {has} an embedding or a Jacobian that is not finite."


def not_searched(facts: Facts) -> str | None:
    """Say that near-duplicates were not searched."""
    if not facts.wanted.needs("neighbours") or "nearest_distance" in facts.known.column_names:
        return None
    return (
        f"Near-duplicates were not searched, because an exact search compares each of the {facts.count} images with "
        "all: install faiss-cpu for an index, or ask for it by --scores nearest_distance."
    )


def duplicates(facts: Facts) -> str | None:
    """Count exact duplicates, by their embeddings and their thumbnails."""
    distance, difference = facts.column("nearest_distance"), facts.column("nearest_difference")
    if distance is None or not np.isfinite(distance).any():
        return None
    if facts.reference is not None and is_collapsed(facts.reference.z):  # all embeddings are copies of one another
        return None
    copied = distance <= COPIES * np.nanmedian(distance)
    if difference is not None:
        copied &= difference <= SAME
    copies = int(copied.sum())
    has = "has" if copies == 1 else "have"
    return f"{counted(copies, 'image')} {has} a copy among the others: nearest_filename names it." if copies else None


def _different(z: Tensor) -> int:
    """Number of different embeddings (M, K); M where that is large enough for all that depends on it."""
    return len(torch.unique(z, dim=0)) if len(z) < 10 * FEWEST_DIFFERENT else len(z)


def _listed(names: list[str]) -> str:
    """Write names as in ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _correlation(score: NDArray[np.float64] | None, size: NDArray[np.float64]) -> float:
    """Spearman with the compressed size (N,); NaN where there are too few images to tell."""
    if score is None:
        return math.nan
    both = np.isfinite(size) & np.isfinite(score)
    return spearman(score[both], size[both]) if both.sum() >= FEWEST_TO_FOLLOW else math.nan


def _reasons_with(facts: Facts, text: str) -> int:
    """Number of reasons that have a text."""
    return int(pc.sum(pc.match_substring(facts.known["reason"], text)).as_py() or 0)


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
    empty,
    incomplete,
    unreadable,
    not_finite,
    not_searched,
    duplicates,
)
