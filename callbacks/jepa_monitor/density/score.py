"""Scores that rank samples by likelihood: natural logarithm, nats, higher = more typical."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..errors import require_whole
from .checks import require_between, require_floating_point, require_tensor
from .embedding import DensityChoice, EmbeddingReference
from .jacobian import gram_and_embedding
from .strategies import Encode, Strategy
from .volume import EPS, TOLERANCE_NATS, is_imprecise, leading_volume, log_singular_values, warn_of_rounding

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

    Raises:
        TypeError, ValueError: for a clip or views that make no sense, and as :func:`jacobian_gram` does.
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
        embedding_density: another density for the same embeddings (see :meth:`EmbeddingReference.fit`), with the volume
            of as many directions as it has; ``auto`` is the reference's own.
        rank: r, from 1 to min(K, D); ``auto`` is the one that was given for the reference, else the density's own.
        views, num_views, seed: as in :func:`jepa_score`.
        strategy, chunk: see :func:`jacobian_gram`.

    Returns:
        (N,) nats, float64; NaN for a sample whose embedding or Jacobian is not finite. Warns where some of the r
        singular values are rounding.

    Raises:
        TypeError: if the reference is no :class:`EmbeddingReference`, and as :func:`jacobian_gram` does.
        ValueError: for a rank out of range, a reference of other embeddings, another density or rank where the
            reference has no embeddings, and as :func:`jacobian_gram` does.
    """
    reference = _chosen(reference, embedding_density, rank)
    if views is not None:
        drawn = _draw_views(x, views, num_views, seed)
        return _joined(log_density(encode, drawn, reference=reference, strategy=strategy, chunk=chunk), num_views)
    gram, z = gram_and_embedding(encode, x, strategy=strategy, chunk=chunk)
    if z.shape[1] != reference.size:
        raise ValueError(
            f"the reference has embeddings of K = {reference.size}, the encoder gives {z.shape[1]}: measure it with "
            "this encoder."
        )
    values = reference.log_singular_values(gram)[:, : x[0].numel() if len(x) else None]
    # a Jacobian has no more directions than its input
    directions = min(reference.rank, values.shape[1]) if rank == "auto" else reference.rank
    log_volume = leading_volume(values, directions)
    warn_of_rounding(values, directions, x.dtype)
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

    Raises:
        ValueError: where volumes and densities are not of as many samples.
    """
    density = embedding_density(coordinates)
    if log_volume.shape != density.shape:
        raise ValueError(
            f"log volumes of shape {tuple(log_volume.shape)} and densities of shape {tuple(density.shape)} must be "
            "(N,) of the same samples."
        )
    return log_volume + density


def aggregate_views(scores: Tensor, dim: int) -> Tensor:
    """Score of a sample from those of its views, Eq. 4 of arXiv 2510.05949: -logmeanexp(-scores) along ``dim``.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: where there is no such dimension, or no view along it.
    """
    shape = require_tensor(scores, name="scores", shape="(N, T)").shape
    require_between(-len(shape), len(shape) - 1, dim=dim)
    if not shape[dim]:
        raise ValueError(f"scores must have views along dimension {dim}, got shape {tuple(shape)}.")
    return math.log(scores.shape[dim]) - torch.logsumexp(-scores, dim=dim)


def _chosen(
    reference: EmbeddingReference, embedding_density: DensityChoice, rank: int | Literal["auto"]
) -> EmbeddingReference:
    """Return the reference, or another one where another density or rank is asked for."""
    if not isinstance(reference, EmbeddingReference):
        raise TypeError(
            f"reference is of type {type(reference).__name__}: pass EmbeddingReference.measure(encode, "
            "training_inputs), or EmbeddingReference.fit(z) of their embeddings."
        )
    require_whole(1, "auto", rank=rank)
    same = isinstance(embedding_density, str) and embedding_density == "auto" and rank in ("auto", reference.rank)
    return reference if same else reference.refit(density=embedding_density, rank=rank)


def _draw_views(x: Tensor, views: Transform, num_views: int, seed: int) -> Tensor:
    """Draw T views of each sample, one after the other: (N, ...) -> (N T, ...)."""
    require_whole(1, num_views=num_views)
    require_whole(0, seed=seed)
    require_floating_point(x)
    if not callable(views):
        raise TypeError(f"views is of type {type(views).__name__}: pass a function of one sample, (...) -> (...).")
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        drawn = [views(sample.clone()) for sample in x for _ in range(num_views)]
    shapes = {tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__ for view in drawn}
    if len(shapes) > 1 or not all(isinstance(view, Tensor) for view in drawn):
        raise ValueError(f"views must return tensors of one shape, got {', '.join(map(str, shapes))}.")
    return torch.stack(drawn) if drawn else x


def _joined(scores: Tensor, num_views: int) -> Tensor:
    return aggregate_views(scores.view(len(scores) // num_views, num_views), 1)


def _warn_if_imprecise(log_singular: Tensor, eps: float, dtype: torch.dtype) -> None:
    imprecise = is_imprecise(log_singular, dtype, eps=eps)
    if bool(imprecise.any()):
        warnings.warn(
            f"{int(imprecise.sum())} of {len(imprecise)} scores may be off by more than {TOLERANCE_NATS} nats, because "
            f"their smallest singular values above eps = {eps:g} are near the rounding error of {dtype}: "
            "use a float64 encoder and inputs, a larger eps, or log_density with a rank.",
            stacklevel=3,
        )
