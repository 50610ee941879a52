"""Scores that rank samples by likelihood: natural logarithm, nats, higher = more typical."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from .embedding import DensityChoice, EmbeddingReference
from .jacobian import gram_and_embedding
from .strategies import Encode, Strategy
from .survey import require_floating_point
from .volume import EPS, TOLERANCE_NATS, is_imprecise, leading_volume, log_singular_values

Transform = Callable[[Tensor], Tensor]


def jepa_score(
    encode: Encode,
    x: Tensor,
    *,
    eps: float = EPS,
    views: Transform | None = None,
    num_views: int = 8,
    seed: int = 0,
    strategy: Strategy = "auto",
    chunk: int | None = None,
) -> Tensor:
    """JEPA-SCORE, Eq. 5 of arXiv 2510.05949: sum_k log max(sigma_k, eps) over the min(K, D) singular values of J.

    The sign is plus: p_X(x) = p_Z(f(x)) |det J|, so a dense region is one that the encoder expands.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
        x: (N, ...) inputs.
        eps: the clip.
        views: a random transform of one sample (...) -> (...), such as torchvision's v2: each sample's score is that of
            ``num_views`` draws, joined by :func:`aggregate_views` (Eq. 4).
        num_views: T.
        seed: draws the views; the global generator is left as it was.
        strategy, chunk: see :func:`jacobian_gram`.

    Returns:
        (N,) nats, float64; NaN for a sample whose Jacobian is not finite. Warns where rounding may cost more than 0.1
        nats (:func:`rounding_error`).
    """
    if views is not None:
        drawn = _draw_views(x, views, num_views, seed)
        return _joined(jepa_score(encode, drawn, eps=eps, strategy=strategy, chunk=chunk), num_views)
    gram, _ = gram_and_embedding(encode, x, strategy=strategy, chunk=chunk)
    values = log_singular_values(gram, input_size=x[0].numel() if len(x) else None, eps=eps)
    _warn_if_imprecise(values, eps, x.dtype)
    return values.sum(1)


def log_density(
    encode: Encode,
    x: Tensor,
    *,
    reference: EmbeddingReference,
    embedding_density: DensityChoice = "auto",
    rank: int | Literal["auto"] = "auto",
    views: Transform | None = None,
    num_views: int = 8,
    seed: int = 0,
    strategy: Strategy = "auto",
    chunk: int | None = None,
) -> Tensor:
    """Log density up to a constant: log p_Z(z) + sum_{k <= r} log sigma_k(J), for any encoder.

    Unlike Eq. 5 it keeps the density of the embedding, and drops directions that carry none.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
        x: (N, ...) inputs.
        reference: density of reference embeddings: ``EmbeddingReference.measure(encode, training_inputs)``.
        embedding_density: another density for the same embeddings (see :meth:`EmbeddingReference.fit`); ``auto`` is the
            reference's own.
        rank: r; ``auto`` is the reference's, so that it does not depend on ``x``.
        views, num_views, seed: as in :func:`jepa_score`.
        strategy, chunk: see :func:`jacobian_gram`.

    Returns:
        (N,) nats, float64; NaN for a sample whose embedding or Jacobian is not finite.

    Raises:
        ValueError: for a rank out of range, or another density or rank where the reference has no embeddings.
    """
    if embedding_density != "auto" or rank not in ("auto", reference.rank):
        reference = reference.refit(density=embedding_density, rank=None if rank == "auto" else rank)
    if views is not None:
        drawn = _draw_views(x, views, num_views, seed)
        return _joined(log_density(encode, drawn, reference=reference, strategy=strategy, chunk=chunk), num_views)
    gram, z = gram_and_embedding(encode, x, strategy=strategy, chunk=chunk)
    log_volume = leading_volume(reference.log_singular_values(gram), reference.rank)
    return log_density_from_volume(log_volume, reference.coordinates(z), reference.log_density)


def log_density_from_volume(
    log_volume: Tensor, coordinates: Tensor, embedding_density: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change variables from embedding to input: log p(x) = log p_Z(z) + log vol_r J, up to a constant.

    Args:
        log_volume: (N,) nats, sum of the r largest log singular values of the Jacobian of the coordinates.
        coordinates: (N, L) of embeddings.
        embedding_density: log p_Z, maps coordinates (N, L) to (N,) nats.

    Returns:
        (N,) nats.
    """
    return log_volume + embedding_density(coordinates)


def aggregate_views(scores: Tensor, dim: int) -> Tensor:
    """Score of a sample from those of its views, Eq. 4 of arXiv 2510.05949: -logmeanexp(-scores) along ``dim``."""
    return math.log(scores.shape[dim]) - torch.logsumexp(-scores, dim=dim)


def _draw_views(x: Tensor, views: Transform, num_views: int, seed: int) -> Tensor:
    """Draw T views of each sample, one after the other: (N, ...) -> (N T, ...)."""
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}.")
    require_floating_point(x)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return torch.stack([views(sample.clone()) for sample in x for _ in range(num_views)])


def _joined(scores: Tensor, num_views: int) -> Tensor:
    return aggregate_views(scores.view(-1, num_views), 1)


def _warn_if_imprecise(log_singular: Tensor, eps: float, dtype: torch.dtype) -> None:
    imprecise = is_imprecise(log_singular, dtype, eps=eps)
    if bool(imprecise.any()):
        warnings.warn(
            f"{int(imprecise.sum())} of {len(imprecise)} scores may be off by more than {TOLERANCE_NATS} nats, because "
            f"their smallest singular values above eps = {eps:g} are near the rounding error of {dtype}: "
            "use a float64 encoder and inputs, a larger eps, or log_density with a rank.",
            stacklevel=3,
        )
