"""From Gram matrices to log volumes, in nats."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

EPS = 1e-6


def log_singular_values(gram: Tensor, *, input_size: int | None = None, eps: float = EPS) -> Tensor:
    """log sigma_k of the Jacobian behind a Gram matrix.

    Args:
        gram: (..., K, K) symmetric, float64.
        input_size: D; a (K, D) Jacobian has only min(K, D) singular values. ``None`` means D >= K.
        eps: singular values below it are clipped to it, as in JEPA-SCORE.

    Returns:
        (..., min(K, D)), largest first; NaN for a Gram matrix with a non-finite entry.
    """
    finite = torch.isfinite(gram).all(-1).all(-1)
    safe = torch.where(finite[..., None, None], gram, torch.zeros_like(gram))
    eigenvalues = torch.linalg.eigvalsh(safe).flip(-1).clamp_min(eps**2)
    return torch.where(finite[..., None], 0.5 * eigenvalues.log(), torch.nan)[..., :input_size]


def log_volume(
    gram: Tensor, *, convention: Literal["clip", "rank"] = "clip", eps: float = EPS, rank: int | None = None
) -> Tensor:
    """Log volume of the Jacobian, sum_k log sigma_k.

    Args:
        gram: (..., K, K) symmetric, float64.
        convention: ``clip`` sums all K values clipped at ``eps`` (Eq. 5 of arXiv 2510.05949); ``rank`` the largest
            ``rank`` of them. One rank for all samples: a rank per sample makes them incomparable.
        eps: the clip.
        rank: r, from 1 to K; needed by, and only by, ``rank``.

    Returns:
        (...,) nats.

    Raises:
        ValueError: for a rank that is missing, out of range, or given with ``clip``.
    """
    values = log_singular_values(gram, eps=eps)
    if convention == "clip":
        if rank is not None:
            raise ValueError("rank goes with convention='rank'; 'clip' uses all singular values.")
        return values.sum(-1)
    if rank is None or not 1 <= rank <= values.shape[-1]:
        raise ValueError(f"convention='rank' needs a rank from 1 to {values.shape[-1]}, got {rank}.")
    return values[..., :rank].sum(-1)
