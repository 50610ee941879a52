"""What should make a person look: each alarm is a pure function of one measurement's values."""

from __future__ import annotations

import math
from collections.abc import Mapping

LOWEST_RANK_RATIO = 0.1
LOWEST_VARIANCE_SHARE = 1e-6
# encoders that begin to train may vary no more than this, and a projector with batch norm blows up what is left of one
# that has collapsed: only beside where the run began does it say something
LOW_VARIANCE_SHARE, FALL_OF_VARIANCE_SHARE = 2e-3, 0.1
TURNED_OVER = -0.3

MESSAGES = {
    "alarm/collapse": "the embeddings have collapsed",
    "alarm/nonfinite_jacobian": "some Jacobians are not finite",
    "alarm/turned_over": "the ranking has turned over since the last measurement",
}


def alarms(
    values: Mapping[str, float], *, embedding_size: int, first_variance_share: float = math.nan
) -> dict[str, str]:
    """Alarm tag to the reason why it rings, for those that do.

    - collapse: fewer than a tenth of the directions that a Gaussian would use (but more than one line), or a variance
      below 1e-6 of the mean square, or below 0.002 of it and a tenth of what it was when the run began;
    - nonfinite_jacobian: at least one;
    - turned_over: a rank correlation below -0.3 with the measurement before.

    Args:
        values: of a measurement, by tag.
        embedding_size: K.
        first_variance_share: ``gaussianity/variance_share`` of the run's first measurement; NaN if this is the first.
    """
    found = {}
    rank_ratio = values.get("gaussianity/effective_rank_ratio", math.nan)
    variance = values.get("gaussianity/variance_share", math.nan)
    # two comparisons, because both are false with NaN
    fallen = variance < LOW_VARIANCE_SHARE and variance < FALL_OF_VARIANCE_SHARE * first_variance_share
    if variance < LOWEST_VARIANCE_SHARE or fallen:
        found["alarm/collapse"] = f"their variance is {variance:.1e} of their mean square"
    elif rank_ratio < max(LOWEST_RANK_RATIO, 1.05 / embedding_size) and embedding_size > 1:
        found["alarm/collapse"] = f"their effective rank is {rank_ratio:.3f} of a Gaussian's"
    nonfinite = values.get("jacobian/nonfinite_fraction", 0.0)
    if nonfinite > 0.0:
        found["alarm/nonfinite_jacobian"] = f"{100.0 * nonfinite:.1f} % of the samples"
    stability = values.get("density/stability", math.nan)
    if stability < TURNED_OVER:
        found["alarm/turned_over"] = f"rank correlation {stability:.2f}"
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One sentence for each alarm that begins or ends."""
    begun = [f"{MESSAGES[tag]}: {reason}." for tag, reason in now.items() if tag not in before]
    return begun + [f"over: {MESSAGES[tag]}." for tag in before if tag not in now]
