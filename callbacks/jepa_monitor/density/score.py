"""Scores that rank samples by likelihood: natural logarithm, nats, higher = more typical."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .jacobian import Encode, jacobian_gram
from .rank import auto_rank
from .reference import EmbeddingReference
from .volume import EPS, log_singular_values


def jepa_score(encode: Encode, x: Tensor, *, eps: float = EPS, chunk: int = 64) -> Tensor:
    """JEPA-SCORE, Eq. 5 of arXiv 2510.05949: sum_k log max(sigma_k, eps) of the Jacobian.

    The sign is plus: p_X(x) = p_Z(f(x)) |det J|, so a dense region is one that the encoder expands.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
        x: (N, ...) inputs.
        eps: the clip.
        chunk: samples per forward pass.

    Returns:
        (N,) nats, float64.
    """
    gram, _ = jacobian_gram(encode, x, chunk=chunk)
    return log_singular_values(gram, input_size=x[0].numel(), eps=eps).sum(1)


def log_density(
    encode: Encode,
    x: Tensor,
    *,
    reference: EmbeddingReference,
    rank: int | Literal["auto"] = "auto",
    chunk: int = 64,
) -> Tensor:
    """Log density up to a constant: sum_{k <= r} log sigma_k(J~) - ||z~||^2 / 2, on whitened embeddings.

    Unlike Eq. 5 it keeps the Gaussian's own density and drops directions that carry none.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
        x: (N, ...) inputs.
        reference: whitening of a probe's embeddings.
        rank: r; ``auto`` cuts the mean spectrum of ``x`` at its widest gap.
        chunk: samples per forward pass.

    Returns:
        (N,) nats, float64.
    """
    gram, z = jacobian_gram(encode, x, chunk=chunk)
    values = log_singular_values(reference.whiten_gram(gram))
    r = auto_rank(values.nanmean(0)) if rank == "auto" else rank
    return log_density_from_spectrum(values, reference.whiten(z), rank=r)


def log_density_from_spectrum(log_singular: Tensor, z_white: Tensor, *, rank: int) -> Tensor:
    """The formula of :func:`log_density` on what was measured.

    Args:
        log_singular: (N, L) log singular values of the whitened embedding's Jacobian, largest first.
        z_white: (N, L) whitened embeddings.
        rank: r, from 1 to L.

    Returns:
        (N,) nats.

    Raises:
        ValueError: for a rank out of range.
    """
    if not 1 <= rank <= log_singular.shape[1]:
        raise ValueError(f"rank must be from 1 to {log_singular.shape[1]}, got {rank}.")
    return log_singular[:, :rank].sum(1) - 0.5 * z_white.square().sum(1)


def aggregate_views(scores: Tensor, dim: int) -> Tensor:
    """Score of a sample from those of its views, Eq. 4 of arXiv 2510.05949: -logmeanexp(-scores) along ``dim``."""
    return math.log(scores.shape[dim]) - torch.logsumexp(-scores, dim=dim)
