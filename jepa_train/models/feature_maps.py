"""Encoders of any other family of timm, such as convolutional networks, where no patch is hidden.

Shape letters: B images, C channels, H and W pixels or places, N = H W places, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from torch import Tensor

from jepa_train.errors import ConfigurationError, one_line
from jepa_train.models.batch_norm import has_batch_norm, join_statistics
from jepa_train.models.encoder import TimmEncoder, check_overrides, created

WHAT_FAILS = (AssertionError, ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class FeatureEncoder(TimmEncoder):
    """A timm network as an encoder of tokens: the places of its last feature map, or its tokens without a class token.

    Its batch norms have the statistics of the batch joined over all processes, and names and weights of timm's. What
    ``forward_features`` does not reach, such as a norm behind the pooling, is not trained.

    Args:
        name: a timm model name, e.g. ``resnet10t``, ``convnext_atto`` or ``swin_tiny_patch4_window7_224``.
        image_size: height and width of the (square) images, in pixels.
        channels: image channels.
        sizes: further heights and widths, of local views.
        overrides: further arguments of ``timm.create_model``.
        pretrained: load timm's published weights.
        gradient_checkpointing: compute stages again in the backward pass, where the network can.

    Raises:
        ConfigurationError: for a network that cannot be built, that returns other things than maps or tokens, does not
            take such images, or cannot recompute its stages.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        channels: int = 3,
        sizes: Sequence[int] = (),
        overrides: dict[str, Any] | None = None,
        pretrained: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_overrides(overrides, free=["patch_size"])  # that of ``JEPA`` is of Vision Transformers
        stated = timm.get_pretrained_cfg(name)
        takes_size = stated is not None and stated.fixed_input_size
        self.name, self.image_size, self.channels = name, image_size, channels
        self.timm_arguments: dict[str, Any] = {
            **({"img_size": image_size} if takes_size else {}),
            "in_chans": channels,
            "num_classes": 0,
            **(overrides or {}),
        }
        self.network = created(name, pretrained, self.timm_arguments)
        join_statistics(self.network)
        self.width = int(self.network.num_features)
        with torch.inference_mode(False), torch.enable_grad():
            for size in (image_size, *sizes):
                self._settle(size)
        if gradient_checkpointing:
            self._recompute()

    @property
    def prefix(self) -> int:
        """Class and register tokens before the others."""
        return int(getattr(self.network, "num_prefix_tokens", 0))

    @property
    def mean_in_timm(self) -> str:  # type: ignore[override]  # read-only
        """Python that makes mean tokens (B, D) of ``images`` by the network called ``model``."""
        features = "model.forward_features(images)"
        if self.is_map:
            return f"{features}.mean({(1, 2) if self._channels_last else (2, 3)})"
        return f"{features}[:, {self.prefix}:].mean(1)" if self.prefix else f"{features}.mean(1)"

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, N, D) tokens."""
        features = self.network.forward_features(images)
        if features.ndim == 3:
            return cast("Tensor", features[:, self.prefix :] if self.prefix else features)
        if self._channels_last:
            return cast("Tensor", features.flatten(1, 2))
        return cast("Tensor", features.flatten(2).transpose(1, 2))

    @property
    def _channels_last(self) -> bool:
        return str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")

    def _settle(self, size: int) -> None:
        """See what becomes of images of a size, without computing it, and freeze what has no part in it."""
        problem = f"{self.name} cannot be the encoder of images of {size} px"
        shadow = copy.deepcopy(self.network).to("meta").eval()
        try:
            features = shadow.forward_features(torch.zeros(1, self.channels, size, size, device="meta"))
        except WHAT_FAILS as error:
            reason = one_line(error).rstrip(".") or type(error).__name__
            raise ConfigurationError(f"{problem} ({reason}): choose another model or size.") from error
        axis = -1 if getattr(features, "ndim", 0) == 3 or self._channels_last else 1
        if not isinstance(features, Tensor) or features.ndim not in (3, 4) or features.shape[axis] != self.width:
            raise ConfigurationError(
                f"{problem}, because its forward_features returns neither maps nor tokens of {self.width} channels: "
                "choose another model."
            )
        self.is_map = features.ndim == 4
        parameters = dict(shadow.named_parameters())
        trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        reached = torch.autograd.grad(features.sum(), list(trained.values()), allow_unused=True)
        for name, gradient in zip(trained, reached, strict=True):
            if gradient is None:
                self.network.get_parameter(name).requires_grad_(False)  # DDP would wait for its gradient

    def _recompute(self) -> None:
        if has_batch_norm(self.network):
            raise ConfigurationError(
                f"gradient_checkpointing computes each batch twice, and the batch norm of {self.name} would count it "
                "twice: set gradient_checkpointing to false."
            )
        try:
            self.network.set_grad_checkpointing(True)
        except WHAT_FAILS as error:
            raise ConfigurationError(
                f"{self.name} cannot compute its stages twice: set gradient_checkpointing to false."
            ) from error
