"""Prediction losses: tokens of the EMA target, the embedding of the full image, and the centre of several views.

Both are means over the batch joined over all processes, also where processes hold different numbers of samples.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import at_least_float32, mean_over_processes

TokenLoss = Literal["smooth_l1", "l2", "cosine"]
TOKEN_LOSSES: tuple[str, ...] = get_args(TokenLoss)


def token_prediction(
    predicted: Tensor, target: Tensor, *, loss: TokenLoss = "smooth_l1", stop_gradient: bool = True
) -> Tensor:
    """Distance between predicted tokens and the target encoder's.

    ``smooth_l1`` (how I-JEPA is trained) and ``l2`` (how its paper is written, arXiv 2301.08243; here a mean) compare
    with the target layer-normed without affine parameters. ``cosine`` is 1 - cos of predicted and target token: both
    lengths are divided out, so the target is taken as it is and the layer norm's centring is not applied.

    Args:
        predicted: (..., D).
        target: (..., D) tokens of the target encoder.
        loss: ``smooth_l1``, ``l2`` or ``cosine``.
        stop_gradient: let no gradient into the target.

    Returns:
        scalar mean over tokens, and over coordinates for ``smooth_l1`` and ``l2``; in [0, 2] for ``cosine``, where a
        token of length zero counts as 1.

    Raises:
        ConfigurationError: for another loss.
    """
    check_token_loss(loss)
    with torch.autocast(predicted.device.type, enabled=False):
        predicted, target = at_least_float32(predicted), at_least_float32(target)
        if stop_gradient:
            target = target.detach()
        if loss == "cosine":
            return mean_over_processes(1.0 - F.cosine_similarity(predicted, target, dim=-1, eps=1e-6))
        target = F.layer_norm(target, target.shape[-1:])
        if loss == "smooth_l1":
            return mean_over_processes(F.smooth_l1_loss(predicted, target, reduction="none"))
        return mean_over_processes(F.mse_loss(predicted, target, reduction="none"))


def check_token_loss(loss: str) -> None:
    """See that a token loss is one of ``TOKEN_LOSSES``.

    Raises:
        ConfigurationError: if not.
    """
    if loss not in TOKEN_LOSSES:
        raise ConfigurationError(f"token_loss must be one of {', '.join(TOKEN_LOSSES)}, got {loss!r}.")


def embedding_prediction(predicted: Tensor, z: Tensor) -> Tensor:
    """Mean squared error between the predictor's embeddings and the full image's, with gradient to both.

    Args:
        predicted: (B, M, K), one prediction per target block.
        z: (B, K) embedding of the full image.

    Returns:
        scalar mean over samples, blocks and coordinates.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        return mean_over_processes((at_least_float32(predicted) - at_least_float32(z).unsqueeze(1)).square())


def centre_prediction(z: Tensor, *, num_global: int) -> Tensor:
    """Mean squared error between the embedding of every view and the centre of the global ones (arXiv 2511.08544).

    The gradient reaches all: there is no predictor, and nothing is detached.

    Args:
        z: (V, B, K) embeddings of V views of the same B samples, the global ones first.
        num_global: views whose mean is the centre, from 1 to V.

    Returns:
        scalar mean over views, samples and coordinates.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        return mean_over_processes((z - z[:num_global].mean(0)).square())
