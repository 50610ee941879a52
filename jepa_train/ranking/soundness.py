"""Checks that an encoder makes one finite vector of each image, by weights that are finite, with a derivative."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_monitor.density import jacobian_gram
from jepa_train.checkpoints.finite import not_finite
from jepa_train.errors import ConfigurationError, one_line, some_of


def check_weights(name: str, module: nn.Module) -> None:
    """See that weights are finite; a buffer may have infinity, as masks of attention do."""
    faults = [
        fault.removeprefix("state_dict.") for fault in not_finite({"state_dict": dict(module.named_parameters())})
    ]
    faults += [name for name, buffer in module.named_buffers() if buffer.is_floating_point() and buffer.isnan().any()]
    if faults:
        raise ConfigurationError(f"weights of {name} are not finite ({some_of(faults)}): choose others.")


def check_forward(name: str, module: nn.Module, shape: tuple[int, int, int]) -> int:
    """See that the encoder makes one finite vector of an image, whatever others are in the batch; return its size."""
    images = torch.linspace(-1.0, 1.0, 2 * shape[0] * shape[1] * shape[2]).reshape(2, *shape)
    try:
        with torch.no_grad():
            both, alone = module(images), module(images[:1])
    except Exception as error:
        raise ConfigurationError(
            f"{name} cannot encode images of {' x '.join(map(str, shape))} ({one_line(error)}): choose another "
            "image_size or pooling, or wrap it in a module whose forward returns (B, K)."
        ) from error
    if both.ndim != 2 or len(both) != 2:
        raise ConfigurationError(
            f"{name} makes a tensor of shape {tuple(both.shape)} of 2 images, not one vector of each: wrap it in a "
            "module whose forward returns (B, K)."
        )
    if not both.isfinite().all():
        raise ConfigurationError(f"{name} makes NaN or infinity of a plain image: choose other weights.")
    if float((both[0] - alone[0]).norm()) > 0.01 * float(alone[0].norm()):
        raise ConfigurationError(
            f"{name} embeds an image differently in a batch than alone: its forward must treat each image by itself."
        )
    return int(both.shape[1])


def check_derivative(name: str, module: nn.Module, image: Tensor, size: int) -> None:
    """See that an embedding of ``size`` numbers has a derivative, by one backward pass for an image (C, H, W)."""
    try:
        with torch.enable_grad():
            module(image[None].clone().requires_grad_())  # where it asks for numbers that autograd cannot follow
        jacobian_gram(module, image[None], rows=torch.ones(1, size))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"volumes need the derivative of {name}, which has none ({one_line(error).rstrip('.')}): compute its "
            "forward with torch alone, without no_grad and detach, or ask for other columns, such as --scores "
            "embedding_log_density,mahalanobis,knn_distance."
        ) from None
