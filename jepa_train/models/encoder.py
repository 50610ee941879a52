"""Context and target encoders: any timm network, and a Vision Transformer that can run on the visible patches alone.

Shape letters: B images, C channels, H and W pixels, N patches, V visible patches, D width, K embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, cast, get_args

import timm
import torch
from timm.layers.drop import DropPath
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jepa_train.errors import ConfigurationError, nearest
from jepa_train.models.stem import ConvolutionalStem, Stem, hide

PositionKind = Literal["fixed", "learned"]
PLAIN = "vision_transformer"  # timm's module of plain Vision Transformers
# what other arguments say; what would add weights that no loss reaches, or another embedding than the mean token; and
# what would drop patches beside the masks
SETTLED = {"img_size", "patch_size", "in_chans", "num_classes", "global_pool", "fc_norm", "patch_drop_rate"}
SETTLED |= {"features_only", "out_indices", "embed_layer"}  # would build another thing than what is known here


class TimmEncoder(nn.Module):
    """A network of timm's as an encoder of tokens, whose mean is the representation.

    Attributes:
        name: name of timm's registry.
        image_size: height and width of the images, in pixels.
        channels: image channels.
        timm_arguments: what ``timm.create_model(name, **timm_arguments)`` builds the network with.
        network: timm's network.
        width: D, channels of a token.
        mean_in_timm: Python that makes mean tokens (B, D) of ``images`` by the network called ``model``.
    """

    name: str
    image_size: int
    channels: int
    timm_arguments: dict[str, Any]
    network: Any
    width: int
    mean_in_timm: str

    def units(self) -> list[nn.Module]:
        """List the modules that may be sharded each as a whole, inner ones first."""
        return [self]

    def compiled_units(self) -> list[nn.Module]:
        """List the modules that are compiled each as a whole."""
        return [self]


class ViTEncoder(TimmEncoder):
    """A timm ``VisionTransformer`` as an encoder of patch tokens.

    Args:
        name: a timm model name of the plain Vision Transformer family, e.g. ``vit_tiny_patch16_224``.
        image_size: height and width of the (square) images, in pixels.
        patch_size: height and width of a patch, in pixels; it must divide ``image_size``.
        channels: image channels.
        overrides: further arguments of ``timm.create_model``, e.g. ``embed_dim``, ``depth``, ``num_heads``,
            ``class_token``, ``reg_tokens``, ``dynamic_img_size``, ``drop_path_rate``. Without pretrained weights there
            is no class token unless it is asked for here, as in I-JEPA. Without them the bias of the patch embedding
            begins at zero, as every bias of timm's blocks does.
        pretrained: load timm's published weights, class token and positions included.
        positions: ``fixed`` sin-cos as in I-JEPA, or ``learned``; pretrained weights bring learned ones.
        stem: ``linear`` patches, or ``convolutional``, see ``ConvolutionalStem``; what is hidden it sees as zeros.
        stem_channels: channels of the convolutional stem before its last layer; ``None`` doubles them up to the width.
        gradient_checkpointing: keep the inputs of blocks only and compute each block again in the backward pass.

    Raises:
        ConfigurationError: for an unknown name, a model of another family, overrides that timm refuses or that would
            contradict other arguments, weights that cannot be fetched, or a patch that does not divide the image.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int,
        patch_size: int,
        channels: int = 3,
        overrides: dict[str, Any] | None = None,
        pretrained: bool = False,
        positions: PositionKind = "fixed",
        stem: Stem = "linear",
        stem_channels: Sequence[int] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_name(name, hides_patches=True)
        if image_size % patch_size:
            raise ConfigurationError(
                f"image_size {image_size} is not divisible by patch_size {patch_size}: choose a patch size that "
                "divides it, or resize the images."
            )
        if positions not in get_args(PositionKind):
            raise ConfigurationError(f"positions must be fixed or learned, got {positions!r}.")
        if stem not in get_args(Stem):
            raise ConfigurationError(f"stem must be linear or convolutional, got {stem!r}.")
        if pretrained and stem != "linear":
            raise ConfigurationError(
                "published weights have a linear stem: leave stem out, or set pretrained to false."
            )
        if stem_channels is not None and stem == "linear":
            raise ConfigurationError("stem_channels are those of a convolutional stem: set stem to convolutional.")
        check_overrides(overrides)
        self.name, self.image_size, self.channels = name, image_size, channels
        self.timm_arguments: dict[str, Any] = {
            "img_size": image_size,
            "patch_size": patch_size,
            "in_chans": channels,
            "num_classes": 0,
            "global_pool": "avg",
            "fc_norm": False,  # keeps the final norm on the tokens: timm would otherwise move it behind the pooling
            **({} if pretrained else {"class_token": False}),
            **(overrides or {}),
        }
        self.stem, self.patch_size = stem, patch_size
        # which no file can say
        own = {} if stem == "linear" else {"embed_layer": partial(ConvolutionalStem, channels=stem_channels)}
        vit = cast("VisionTransformer", created(name, pretrained, self.timm_arguments, **own))
        self.vit = vit  # the weights' names in checkpoints
        self.width = int(vit.embed_dim)
        vit.set_grad_checkpointing(gradient_checkpointing)
        if not pretrained:
            if stem == "linear" and vit.patch_embed.proj.bias is not None:
                nn.init.zeros_(vit.patch_embed.proj.bias)
            if positions == "fixed" and vit.pos_embed is not None:
                _write_fixed_positions(vit)

    mean_in_timm = "model(images)"

    @property
    def network(self) -> VisionTransformer:
        """timm's network."""
        return self.vit

    def units(self) -> list[nn.Module]:
        """List the modules that may be sharded each as a whole, inner ones first."""
        return [*self.vit.blocks, self]

    def compiled_units(self) -> list[nn.Module]:
        """List the modules that are compiled each as a whole: blocks are alike, so that one is compiled for all."""
        return [self.vit.patch_embed, *self.vit.blocks]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along height and width."""
        return cast("tuple[int, int]", self.vit.patch_embed.grid_size)

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode images, or only their visible patches.

        Args:
            images: (B, C, H, W).
            visible: (B, V) patch indices in raster order; ``None`` means all N.

        Returns:
            (B, V or N, D) tokens after the final norm, without class or register tokens.
        """
        vit = self.vit
        prefix = vit.num_prefix_tokens
        if visible is None:
            return _patch_tokens(vit.forward_features(images), prefix)
        if self.stem == "convolutional":
            images = hide(images, visible, self.patch_size)
        tokens = vit._pos_embed(vit.patch_embed(images))
        tokens = torch.cat([tokens[:, :prefix], gather_tokens(tokens[:, prefix:], visible)], dim=1)
        tokens = vit.norm_pre(tokens)
        tokens = checkpoint_seq(vit.blocks, tokens) if vit.grad_checkpointing else vit.blocks(tokens)
        return _patch_tokens(vit.norm(tokens), prefix)


def check_name(name: str, *, hides_patches: bool) -> None:
    """See that timm has a model of this name, and one of which patches can be hidden, if that is needed.

    Raises:
        ConfigurationError: naming the nearest of those that can be chosen.
    """
    if not timm.is_model(name):
        module = PLAIN if hides_patches else ""
        near = nearest(name, timm.list_models(module=module))
        like = f"names like it: {', '.join(near)}" if near else f"timm.list_models(module={module!r}) has all"
        raise ConfigurationError(f"timm has no model named {name!r}; {like}.")
    if hides_patches and not is_vision_transformer(name):
        raise ConfigurationError(
            f"{name!r} is not a timm VisionTransformer, and other encoders cannot hide patches: choose a vit_* model "
            "as the encoder, or an objective that hides none (-c configs/objective/lejepa.yaml)."
        )


def is_vision_transformer(name: str) -> bool:
    """Return true for a name of timm's plain Vision Transformers."""
    return bool(timm.models.is_model_in_modules(name, [PLAIN]))


def check_overrides(overrides: dict[str, Any] | None, *, free: Collection[str] = ()) -> None:
    """See that no override contradicts another argument, but for those that are free.

    Raises:
        ConfigurationError: naming those that do.
    """
    if settled := sorted((SETTLED - set(free)) & (overrides or {}).keys()):
        raise ConfigurationError(f"encoder_overrides cannot set {', '.join(settled)}: leave it out.")


def created(name: str, pretrained: bool, arguments: dict[str, Any], **own: Any) -> Any:
    """Build timm's network; ``own`` are arguments that are no plain types.

    Raises:
        ConfigurationError: saying in one sentence why that does not work.
    """
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments, **own)
    except ConfigurationError:
        raise
    except TypeError as error:
        raise ConfigurationError(f"timm refuses an argument in encoder_overrides: {error}.") from error
    except (AssertionError, ArithmeticError, RuntimeError, OSError, ValueError) as error:
        what = "fetch the published weights of" if pretrained else "build"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(f"timm cannot {what} {name} with {arguments}: {reason.rstrip('.')}.") from error


def _patch_tokens(tokens: Tensor, prefix: int) -> Tensor:
    """Tokens without the class and register tokens before them; no view where there are none: FSDP2 warns of views."""
    return tokens[:, prefix:] if prefix else tokens


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by position: (B, N, D) and (B, V) -> (B, V, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _write_fixed_positions(vit: VisionTransformer) -> None:
    """Replace learned positions by frozen 2-d sin-cos ones, as in I-JEPA; prefix tokens get zero."""
    positions = fixed_positions(vit.patch_embed.grid_size, vit.embed_dim)
    pos_embed = cast("nn.Parameter", vit.pos_embed)
    extra = pos_embed.shape[1] - len(positions)
    with torch.no_grad():
        pos_embed.copy_(torch.cat([positions.new_zeros(extra, vit.embed_dim), positions]).unsqueeze(0))
    pos_embed.requires_grad_(False)


def fixed_positions(grid_size: tuple[int, int], width: int) -> Tensor:
    """2-d sin-cos position code, (N, width) in raster order.

    Raises:
        ConfigurationError: if the width is not a multiple of 4 (sine and cosine for each of two axes).
    """
    if width % 4:
        raise ConfigurationError(f"sin-cos positions need a width that is a multiple of 4, got {width}.")
    return build_sincos2d_pos_embed(list(grid_size), dim=width)


class EmbeddingEncoder(nn.Module):
    """Encoder and projector together: what the EMA follows and what the monitor scores.

    Args:
        encoder: encoder of tokens, a ``ViTEncoder`` or a ``FeatureEncoder``.
        projector: map from mean tokens (B, D) to embeddings (B, K); ``nn.Identity`` makes mean tokens the embeddings.
    """

    def __init__(self, encoder: TimmEncoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images -> (B, K) embeddings."""
        return cast("Tensor", self.projector(self.encoder(images).mean(dim=1)))

    def units(self) -> list[nn.Module]:
        """List the modules that may be sharded each as a whole, inner ones first."""
        return [*self.encoder.units(), self.projector]

    def frozen_copy(self) -> EmbeddingEncoder:
        """A copy without gradients that drops nothing, whatever its mode: a target is the whole network."""
        target = copy.deepcopy(self).requires_grad_(False)
        for module in target.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(module, DropPath):
                module.drop_prob = 0.0
        return target


def attention_kernel(device: torch.device) -> AbstractContextManager[object]:
    """Choose the kernel of attention in training, where it has a backward pass and the number of tokens changes.

    On a CPU torch's fused kernel has a backward pass in half precision that takes several times as long as the plain
    products do (``benchmarks/train_step.py --precision bf16-mixed`` shows what it costs). On a GPU cuDNN's kernel is
    planned anew for each of the many numbers of tokens that masks give, which takes longer than a step; the other fused
    kernels are as fast and have no plans.
    """
    if device.type == "cuda":
        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
