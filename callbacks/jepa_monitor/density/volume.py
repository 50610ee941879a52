"""Spectra and log volumes of Gram matrices, in nats, and what rounding does to a volume."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from ..errors import require_whole
from .checks import require_between, require_grams, require_positive, require_tensor

EPS = 1e-6
TOLERANCE_NATS = 0.1


def log_singular_values(gram: Tensor, *, input_size: int | None = None, eps: float = EPS) -> Tensor:
    """Log singular values, log sigma_k, of the Jacobian behind a Gram matrix.

    Args:
        gram: (..., K, K) symmetric, float64.
        input_size: D; a (K, D) Jacobian has only min(K, D) singular values. ``None`` means D >= K.
        eps: singular values below it are clipped to it, as in JEPA-SCORE.

    Returns:
        (..., min(K, D)), largest first; NaN for a Gram matrix with a non-finite entry.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for another shape, integers, a clip that is not positive, or an input size below 1.
    """
    gram = require_grams(gram)
    require_positive(eps=eps)
    require_whole(1, None, input_size=input_size)
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
        TypeError: for what is not a tensor.
        ValueError: for a rank that is missing, out of range, or given with ``clip``, for another convention, and as
            :func:`log_singular_values` does.
    """
    if convention not in ("clip", "rank"):
        raise ValueError(f"convention must be clip or rank, got {convention!r}.")
    values = log_singular_values(gram, eps=eps)
    if convention == "clip":
        if rank is not None:
            raise ValueError("rank goes with convention='rank'; 'clip' uses all singular values.")
        return values.sum(-1)
    if rank is None:
        raise ValueError(f"convention='rank' needs a rank from 1 to {values.shape[-1]}.")
    return leading_volume(values, rank)


def leading_volume(log_singular: Tensor, rank: int) -> Tensor:
    """Log volume of the r largest directions.

    Args:
        log_singular: (..., L) log singular values, largest first.
        rank: r, from 1 to L.

    Returns:
        (...,) nats.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for a rank out of range.
    """
    log_singular = require_tensor(log_singular, name="log singular values", shape="(..., L)")
    require_between(1, log_singular.shape[-1] if log_singular.ndim else 0, rank=rank)
    return log_singular[..., :rank].sum(-1)


def rounding_error(log_singular: Tensor, *, dtype: torch.dtype, eps: float = EPS) -> Tensor:
    """Estimate how far rounding moves the sum of log singular values of a float64 Gram matrix.

    Rounding the Jacobian moves a singular value by about u sigma_1 and squaring it in float64 moves its square by about
    u64 sigma_1^2, so sum_k log sigma_k moves by about sum_k u sigma_1 / sigma_k + u64 (sigma_1 / sigma_k)^2 over those
    above the clip.

    Args:
        log_singular: (N, k) nats, largest first.
        dtype: precision of the Jacobian, with unit roundoff u.
        eps: the clip.

    Returns:
        (N,) nats.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for another shape, types that are not floating-point ones, or a clip that is not positive.
    """
    log_singular = require_tensor(log_singular, name="log singular values", shape="(N, k)")
    if log_singular.ndim != 2 or not log_singular.is_floating_point():
        raise ValueError(
            f"log singular values must be floating-point numbers (N, k), got {log_singular.dtype} of shape "
            f"{tuple(log_singular.shape)}."
        )
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, such as torch.float32, got {dtype}.")
    require_positive(eps=eps)
    inverse = (log_singular[:, :1] - log_singular).exp()
    error = torch.finfo(dtype).eps * inverse + torch.finfo(torch.float64).eps * inverse.square()
    return torch.where(log_singular > math.log(eps) + 1e-9, error, 0.0).sum(1)


def is_imprecise(log_singular: Tensor, dtype: torch.dtype, *, eps: float = EPS) -> Tensor:
    """Tell of which samples rounding may move the sum of log singular values by more than 0.1 nats: (N, k) -> (N,)."""
    return rounding_error(log_singular, dtype=dtype, eps=eps) > TOLERANCE_NATS


def is_clipped(log_singular: Tensor) -> Tensor:
    """Tell which log singular values lie at the clip of Eq. 5, elementwise."""
    return log_singular <= math.log(EPS) + 1e-9


def counts_rounding(log_singular: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """Tell of which samples the r largest singular values are rounding in part: (N, L) -> (N,).

    Either the clip hides them, or rounding may move the rank-r volume by more than 0.1 nats.

    Raises:
        TypeError, ValueError: for a rank out of range, and as :func:`rounding_error` does.
    """
    log_singular = require_tensor(log_singular, name="log singular values", shape="(N, L)")
    require_between(1, log_singular.shape[-1] if log_singular.ndim else 0, rank=rank)
    leading = log_singular[..., :rank]
    imprecise = is_imprecise(leading, dtype)
    return is_clipped(leading[:, -1]) | imprecise


def warn_of_rounding(log_singular: Tensor, rank: int, dtype: torch.dtype) -> None:
    """Warn where the rank is above the number of directions that there are, for the caller's caller.

    Args:
        log_singular: (N, L) nats, largest first.
        rank: r, from 1 to L.
        dtype: precision of the Jacobian.
    """
    count = int(counts_rounding(log_singular, rank, dtype).sum())
    if count:
        warnings.warn(
            f"the volumes of {count} of {len(log_singular)} samples count singular values that are rounding: their "
            f"Jacobians have fewer than rank = {rank} directions in {dtype}, so pass a smaller rank.",
            stacklevel=3,
        )
