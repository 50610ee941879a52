"""When a number about features would be about nothing."""

from __future__ import annotations

import torch
from torch import Tensor

# what float32 rounding spreads features by, relative to their size
ROUNDING = 1e-6


def is_constant(features: Tensor) -> bool:
    """Are all rows of (N, ...) finite features equal, but for rounding?"""
    largest = features.abs().amax()
    return not bool((features - features[:1]).abs().amax() > ROUNDING * largest)


def why_unfit(features: Tensor) -> str | None:
    """Why nothing can be said of (N, ...) features, or ``None``."""
    finite = torch.isfinite(features).flatten(1).all(1)
    if not finite.all():
        return f"{int((~finite).sum())} of {len(features)} are not finite"
    if len(features) < 2:
        return f"there is {len(features)} sample"
    if is_constant(features):
        return "all samples have the same: they have collapsed to a point"
    return None


def why_unclassifiable(queries: Tensor, bank: Tensor, labels: Tensor) -> str | None:
    """Why an accuracy on these features would say nothing, or ``None``.

    Features that are constant are classified as some class, with an accuracy that is that class's share.

    Args:
        queries, bank: (Q, D) and (B, D).
        labels: (B,) of the bank.
    """
    if not torch.isfinite(queries).all():
        return f"{int((~torch.isfinite(queries).all(1)).sum())} of {len(queries)} queries are not finite"
    unfit = why_unfit(bank)
    if unfit is None and len(torch.unique(labels)) < 2:
        return "the labelled samples are of one class"
    return unfit
