"""Multi-block masks of I-JEPA (arXiv 2301.08243, section 3), as a pure function of a generator.

One block size per batch, drawn from one random number that drives scale and aspect ratio together; a position per
image and block. Targets may overlap each other; the context never overlaps a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from jepa_train.errors import ConfigurationError

MaskMode = Literal["corrected", "paper"]


@dataclass(frozen=True)
class MultiBlockMasks:
    """Sampler of context and target patches.

    Attributes:
        grid_size: patches along height and width.
        num_targets: M, target blocks per image.
        target_scale: smallest and largest share of the patches in a target block.
        target_aspect: smallest and largest ratio of height to width of a target block.
        context_scale: smallest and largest share of the patches in the context block (which is square).
        min_context: fewest context patches an image may keep.
        mode: ``corrected`` places blocks up to and including the last row and column, and shortens contexts to a
            common length by dropping random patches. ``paper`` has the two faults of the published code: blocks never
            touch the last row and column, and contexts lose their last patches in raster order.
    """

    grid_size: tuple[int, int]
    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_context: int = 4
    mode: MaskMode = "corrected"

    def __call__(self, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw masks for a batch.

        Args:
            batch_size: B.
            generator: a CPU generator; equal states give equal masks.

        Returns:
            context (B, V) and targets (B, M, T): int64 patch indices in raster order.

        Raises:
            ConfigurationError: if no draw in 20 leaves ``min_context`` patches; the message says what to change.
        """
        size_draw, context_draw = torch.rand(2, generator=generator).tolist()
        target_size = self._block_size(size_draw, self.target_scale, self.target_aspect)
        context_size = self._block_size(context_draw, self.context_scale, (1.0, 1.0))

        targets = self._place(batch_size * self.num_targets, target_size, generator).unflatten(0, (batch_size, -1))
        context = self._place(batch_size, context_size, generator)
        free = self._free_context(context, targets)
        for _ in range(20):
            short = (free.sum(1) < self.min_context).nonzero().squeeze(1)
            if not len(short):
                break
            redrawn = self._place(len(short) * self.num_targets, target_size, generator)
            targets[short] = redrawn.unflatten(0, (len(short), -1))
            context[short] = self._place(len(short), context_size, generator)
            free = self._free_context(context, targets)
        else:
            raise ConfigurationError(
                f"{self.num_targets} targets of {target_size[0]} x {target_size[1]} patches leave fewer than "
                f"{self.min_context} context patches on a {self.grid_size[0]} x {self.grid_size[1]} grid: lower "
                "num_targets, target_scale or min_context, or use smaller patches."
            )
        return self._shorten(free, generator), targets

    def _block_size(self, draw: float, scale: tuple[float, float], aspect: tuple[float, float]) -> tuple[int, int]:
        rows, columns = self.grid_size
        area = rows * columns * (scale[0] + draw * (scale[1] - scale[0]))
        ratio = aspect[0] + draw * (aspect[1] - aspect[0])
        # the published code keeps blocks smaller than the grid, so that a position can always be drawn
        margin = 1 if self.mode == "paper" else 0
        height = min(max(round((area * ratio) ** 0.5), 1), max(rows - margin, 1))
        width = min(max(round((area / ratio) ** 0.5), 1), max(columns - margin, 1))
        return height, width

    def _place(self, count: int, size: tuple[int, int], generator: Generator) -> Tensor:
        """Patch indices (count, height * width) of blocks at random positions."""
        rows, columns = self.grid_size
        height, width = size
        last = 0 if self.mode == "paper" else 1
        top = torch.randint(max(rows - height + last, 1), (count, 1, 1), generator=generator)
        left = torch.randint(max(columns - width + last, 1), (count, 1, 1), generator=generator)
        block = (top + torch.arange(height).view(1, -1, 1)) * columns + left + torch.arange(width).view(1, 1, -1)
        return block.flatten(1)

    def _free_context(self, context: Tensor, targets: Tensor) -> Tensor:
        """(B, N) true where a patch is in the context block and in no target."""
        free = torch.zeros(len(context), self.grid_size[0] * self.grid_size[1], dtype=torch.bool)
        return free.scatter_(1, context, True).scatter_(1, targets.flatten(1), False)

    def _shorten(self, free: Tensor, generator: Generator) -> Tensor:
        """(B, V) indices of the free patches, cut to the length of the shortest context of the batch."""
        length = int(free.sum(1).min())
        order = torch.rand(free.shape, generator=generator) if self.mode == "corrected" else raster_order(free)
        kept = order.masked_fill(~free, 2.0).topk(length, dim=1, largest=False).indices
        return kept.sort(dim=1).values


def raster_order(free: Tensor) -> Tensor:
    """A priority in [0, 1) that grows along the raster, for each row of (B, N)."""
    return torch.arange(free.shape[1]).div(free.shape[1]).expand(free.shape)
