"""A control without views or samples: the spectral norms of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import at_least_float32


def spectral_penalty(module: nn.Module) -> Tensor:
    """1/2 sum of sigma_max(W)^2 over the linear layers (arXiv 1705.10941, without its lambda).

    The largest singular value is exact, not a step of power iteration. The gradient is sigma u v^T for each matrix, u
    and v its first singular vectors. It depends on nothing but the weights, so every process has the same value.

    Args:
        module: any that holds ``nn.Linear`` layers; their trainable weights count, each once, also where it is shared.

    Returns:
        scalar >= 0, on the device of the weights.

    Raises:
        ConfigurationError: where no linear layer is trainable.
    """
    return 0.5 * torch.stack([_largest_squared(matrix) for matrix in linear_weights(module)]).sum()


def linear_weights(module: nn.Module) -> list[Tensor]:
    """List the trainable weights (P, Q) of linear layers, each once.

    Raises:
        ConfigurationError: where there are none, as in a network of convolutions.
    """
    layers = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
    weights = list({id(layer.weight): layer.weight for layer in layers if layer.weight.requires_grad}.values())
    if not weights:
        raise ConfigurationError(
            "spectral_weight looks at linear layers, and the encoder has none that are trained: choose another "
            "encoder, or leave spectral_weight at 0."
        )
    return weights


def _largest_squared(matrix: Tensor) -> Tensor:
    """(P, Q) -> sigma_max^2 = ||W v||^2, where v may stay fixed: the maximum does not change with it to first order.

    Half the time of the eigenvalues of the Gram matrix with their own gradient, a quarter of the singular values'.
    """
    if isinstance(matrix, DTensor):
        matrix = matrix.full_tensor()  # weights that are sharded over processes
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = at_least_float32(matrix)
        wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # (small, large)
        with torch.no_grad():
            vector = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -1]
        largest: Tensor = (vector @ wide).square().sum()
        return largest
