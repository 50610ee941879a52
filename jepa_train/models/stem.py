"""A convolutional stem of the Vision Transformer (Xiao et al., arXiv 2106.14881), in the place of one matrix a patch.

Shape letters: B images, C channels, H and W pixels, N patches, V visible patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError

Stem = Literal["linear", "convolutional"]
NARROWEST = 8
GROUPED = 16  # channels that a group norm takes together; of 8, in bfloat16, CPUs make no whole vector


class ConvolutionalStem(PatchEmbed):
    """timm's ``PatchEmbed`` with convolutions in the place of its one matrix.

    3 x 3 convolutions of stride 2, each with group norm and ReLU, go down to the patch grid, with twice the channels
    each time and the width in the end, unless other ``channels`` are given. Where halving, rounded up, leads past the
    grid, the patch is halved as often as 2 divides it, and one more convolution is as large as what is left of it. A
    token sees up to a patch's height and width around its own. The paper's last convolution, of 1 x 1, is left out:
    blocks begin with a matrix anyway.

    Args:
        img_size, patch_size, in_chans, embed_dim: as timm has them.
        channels: outputs of each convolution but the last; ``None`` for half of the next one's.
        others: as timm has them.

    Raises:
        ConfigurationError: for a patch of odd size, where no halving leads to the grid, and for another number of
            channels than there are convolutions before the last.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        channels: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **others)
        halved = halvings(img_size, patch_size)
        if halved is None and patch_size % 2:
            raise ConfigurationError(
                f"a convolutional stem halves images, and patch_size {patch_size} is odd: choose an even one, best a "
                "power of 2, or stem linear."
            )
        made = convolutions(in_chans, embed_dim, patch_size, halved=halved, before_last=channels)
        self.proj = made  # type: ignore[assignment]  # as callable


def halvings(image_size: int, patch_size: int) -> int | None:
    """Count how often an image is halved, rounded up, until it has as many pixels as patches; ``None`` if it never has.

    28 pixels have four patches of 7 after three times: 14, 7, 4.
    """
    count, patches = 0, image_size // patch_size
    while image_size > patches:
        image_size, count = math.ceil(image_size / 2), count + 1
    return count if count and image_size == patches else None


def convolutions(
    channels: int,
    width: int,
    patch_size: int,
    *,
    halved: int | None = None,
    before_last: Sequence[int] | None = None,
) -> nn.Sequential:
    """Build the stem, (B, C, H, W) -> (B, D, H / patch_size, W / patch_size).

    Args:
        channels: C.
        width: D.
        patch_size: height and width of a patch, in pixels.
        halved: see :func:`halvings`; ``None`` halves as often as 2 divides the patch.
        before_last: channels of each convolution but the last; ``None`` for half of the next one's.

    Raises:
        ConfigurationError: for another number of channels than there are convolutions before the last.
    """
    times = (patch_size & -patch_size).bit_length() - 1 if halved is None else halved
    left = 1 if halved is not None else patch_size >> times
    strides = [2] * times + ([left] if left > 1 else [])
    count = len(strides) - 1
    if before_last is None:
        before_last = [max(width >> (count - step), NARROWEST) for step in range(count)]
    elif len(before_last) != count or min(before_last, default=1) < 1:
        raise ConfigurationError(
            f"stem_channels must be {count} numbers of at least 1, one for each convolution before the last; got "
            f"{list(before_last)}."
        )
    layers: list[nn.Module] = []
    for stride, wider in zip(strides, [*before_last, width], strict=True):
        size, padding = (3, 1) if stride == 2 else (stride, 0)
        layers.append(nn.Conv2d(channels, wider, size, stride=stride, padding=padding, bias=False))
        layers.append(nn.GroupNorm(wider // math.gcd(wider, GROUPED), wider))
        layers.append(nn.ReLU(inplace=True))
        channels = wider
    # the layout in which CPUs convolve fastest, and GPUs in bfloat16
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


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
