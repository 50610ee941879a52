"""A convolutional stem of the Vision Transformer (Xiao et al., arXiv 2106.14881), in the place of one matrix a patch.

Shape letters: B images, C channels, H and W pixels, N patches, V visible patches, D width.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError

Stem = Literal["linear", "convolutional"]
NARROWEST = 8
GROUPED = 8  # channels that a group norm takes together


class ConvolutionalStem(PatchEmbed):
    """timm's ``PatchEmbed`` with convolutions in the place of its one matrix.

    3 x 3 convolutions of stride 2, each with group norm and GELU, go down to the patch grid, with twice the channels
    each time and the width in the end; then one of 1 x 1 makes tokens. Where the patch has an odd factor, the last one
    is as large as that.

    Args:
        img_size, patch_size, in_chans, embed_dim: as timm has them.
        others: as timm has them.

    Raises:
        ConfigurationError: for a patch of odd size, which nothing of stride 2 leads to.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **others: Any) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **others)
        if patch_size % 2:
            raise ConfigurationError(
                f"a convolutional stem halves images, and patch_size {patch_size} is odd: choose an even one, best a "
                "power of 2, or stem linear."
            )
        bias = self.proj.bias is not None
        self.proj = convolutions(in_chans, embed_dim, patch_size, bias=bias)  # type: ignore[assignment]  # as callable


def convolutions(channels: int, width: int, patch_size: int, *, bias: bool = True) -> nn.Sequential:
    """Build the stem, (B, C, H, W) -> (B, D, H / patch_size, W / patch_size).

    Args:
        channels: C.
        width: D.
        patch_size: height and width of a patch, in pixels; even.
        bias: give the last convolution a bias, which begins at zero.
    """
    halvings = (patch_size & -patch_size).bit_length() - 1  # as often as 2 divides it
    layers: list[nn.Module] = []
    for left in reversed(range(halvings)):
        wider = max(width >> left, NARROWEST)
        layers.append(nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False))
        layers.append(nn.GroupNorm(wider // math.gcd(wider, GROUPED), wider))
        layers.append(nn.GELU())
        channels = wider
    last = patch_size >> halvings
    tokens = nn.Conv2d(channels, width, last, stride=last, bias=bias)
    if tokens.bias is not None:
        nn.init.zeros_(tokens.bias)
    return nn.Sequential(*layers, tokens)


def hide(images: Tensor, visible: Tensor, patch_size: int) -> Tensor:
    """Set the pixels of all patches but the visible ones to zero: convolutions look beyond the border of a patch.

    Args:
        images: (B, C, H, W).
        visible: (B, V) patch indices in raster order.
        patch_size: height and width of a patch, in pixels.
    """
    height, width = images.shape[-2:]
    rows, columns = math.ceil(height / patch_size), math.ceil(width / patch_size)  # timm may pad the last ones
    shown = torch.zeros(len(images), rows * columns, dtype=images.dtype, device=images.device)
    shown = shown.scatter_(1, visible, 1.0).view(-1, 1, rows, columns)
    pixels = shown.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)
    # not a product: what is hidden may be infinite
    return torch.where(pixels[..., :height, :width] > 0, images, 0.0)
