"""Prediction losses: tokens of the EMA target, and the embedding of the full image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_train.precision import at_least_float32


def token_prediction(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 between predicted tokens and layer-normed target tokens (I-JEPA).

    Args:
        predicted: (..., D).
        target: (..., D) tokens of the target encoder; detached and normalised here, without affine parameters.

    Returns:
        scalar mean.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        target = F.layer_norm(at_least_float32(target.detach()), target.shape[-1:])
        return F.smooth_l1_loss(at_least_float32(predicted), target)


def embedding_prediction(predicted: Tensor, z: Tensor) -> Tensor:
    """Mean squared error between the predictor's embeddings and the full image's, with gradient to both.

    Args:
        predicted: (B, M, K), one prediction per target block.
        z: (B, K) embedding of the full image.

    Returns:
        scalar mean over samples, blocks and coordinates.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        return F.mse_loss(at_least_float32(predicted), at_least_float32(z).unsqueeze(1).expand_as(predicted))
