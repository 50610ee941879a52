"""Forecast, from samples of the distribution alone, whether a score takes those of others for more typical."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import stats

from .correlation import as_vectors, spearman

VARIANCE = 1.06  # times 1 / (N - 3): of the inverse hyperbolic tangent of a rank correlation (Fieller et al. 1957)


@dataclass(frozen=True)
class Inversion:
    """Rank correlation of a score with how typical embeddings are, and what it lets expect.

    Attributes:
        correlation: Spearman's, -1 to 1; NaN where one side cannot be ranked.
        low, high: ends of its interval.
    """

    correlation: float
    low: float
    high: float

    @property
    def is_expected(self) -> bool | None:
        """True where the whole interval is below 0, false where it is above, ``None`` where that is open."""
        if self.high < 0.0:
            return True
        return False if self.low > 0.0 else None


def predict_inversion(scores: ArrayLike, typical: ArrayLike, *, level: float = 0.95) -> Inversion:
    """Forecast whether a score will rank samples of other distributions above those of its own (AUROC below 1/2).

    A score that is the higher, the less typical a sample of the distribution itself is, has no reason to turn round
    where samples are less typical still. Against sets that nearness itself takes for typical the forecast says nothing:
    ``docs/detection/objectives.md`` says how often it holds.

    Args:
        scores: (N,) scores of held-out samples of the distribution; higher is taken for more typical.
        typical: (N,) how typical their embeddings are, by something that does not invert: minus the distance to the
            nearest reference embeddings (:class:`NearestNeighbours`), to which none of the samples belongs.
        level: probability of the interval.

    Raises:
        ValueError: if lengths differ, or ``level`` is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    first, second = as_vectors(scores=scores, typical=typical)
    correlation = spearman(first, second)
    if math.isnan(correlation) or len(first) <= 3:
        return Inversion(correlation, math.nan, math.nan)
    half = float(stats.norm.ppf(0.5 + 0.5 * level)) * math.sqrt(VARIANCE / (len(first) - 3))
    middle = math.atanh(max(-1.0 + 1e-12, min(1.0 - 1e-12, correlation)))
    return Inversion(correlation, math.tanh(middle - half), math.tanh(middle + half))
