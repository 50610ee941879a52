"""Multi-block masks of I-JEPA (arXiv 2301.08243, section 3), as a pure function of a generator.

One block size per batch, drawn from one random number that drives scale and aspect ratio together; a position per
image and block. Targets may overlap each other; the context never overlaps a target.

Shape letters: B images, N patches, M target blocks, T patches of a target block, V patches of a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from jepa_train.errors import ConfigurationError

MaskMode = Literal["corrected", "paper"]
REDRAWS = 20
CHECKED = 64  # images of which masks are tried before training
BlockSize = tuple[int, int]


@dataclass(frozen=True)
class MultiBlockMasks:
    """Sampler of context and target patches.

    Block sizes are the same in both modes, and so, within a few percent, is the number of context patches; the modes
    differ in where they lie:

    - ``paper`` has the two faults of the published code. No block touches the last row or column (and the context block
      is smaller than the grid, so it nearly always begins at the first patch); contexts of a batch are brought to a
      common length by cutting off their last patches in raster order.
    - ``corrected`` places target blocks anywhere in the grid, lets the context block be as large as the grid, and
      brings contexts to the length that ``paper`` would have by dropping random patches.

    The published code cuts contexts to the shortest of a process's batch, so its contexts shrink as that batch grows.
    Here they are cut to the shortest of ``context_group`` images, whatever the batch: an image further on whose context
    would be shorter draws its masks again.

    Attributes:
        grid_size: patches along height and width.
        num_targets: M, target blocks per image.
        target_scale: smallest and largest share of the patches in a target block.
        target_aspect: smallest and largest ratio of height to width of a target block.
        context_scale: smallest and largest share of the patches in the context block (which is square).
        min_context: fewest context patches an image may keep. (The published setting of 10 is one that contexts must
            exceed: 11 here.)
        context_group: images that settle the length of the contexts.
        mode: ``corrected`` or ``paper``.

    Raises:
        ConfigurationError: for a range or number that cannot work.
    """

    grid_size: tuple[int, int]
    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_context: int = 4
    context_group: int = 128
    mode: MaskMode = "corrected"

    def __post_init__(self) -> None:
        for name in ("target_scale", "context_scale"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high <= 1.0:
                raise ConfigurationError(f"{name} must be two shares of the patches, 0 < low <= high <= 1.")
        if not 0.0 < self.target_aspect[0] <= self.target_aspect[1]:
            raise ConfigurationError("target_aspect must be two positive ratios, the smaller first.")
        if min(self.num_targets, self.min_context, self.context_group) < 1:
            raise ConfigurationError("num_targets, min_context and context_group must be 1 or more.")
        if self.mode not in ("corrected", "paper"):
            raise ConfigurationError(f"mask_mode must be 'corrected' or 'paper', got {self.mode!r}.")

    def __call__(self, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw masks for a batch.

        Args:
            batch_size: B.
            generator: a CPU generator; equal states give equal masks. V is known on the host without waiting for an
                accelerator, because nothing here runs on one.

        Returns:
            context (B, V) and targets (B, M, T): int64 patch indices in raster order.

        Raises:
            ConfigurationError: if no draw in 20 leaves ``min_context`` patches; the message says what to change.
        """
        size_draw, context_draw = torch.rand(2, generator=generator, dtype=torch.float32).tolist()
        target_size = self._block_size(size_draw, self.target_scale, self.target_aspect)
        context_size = self._block_size(context_draw, self.context_scale, (1.0, 1.0))

        free, targets = self._draw(batch_size, context_size, target_size, generator)
        shortest = int(free[: self.context_group].sum(1).min())
        for _ in range(REDRAWS):
            short = (free.sum(1) < shortest).nonzero().squeeze(1)
            if not len(short):
                break
            free[short], targets[short] = self._draw(len(short), context_size, target_size, generator)
        length = int(free.sum(1).min())
        if self.mode == "paper":
            return _first(free, raster_order(free), length), targets
        published = self._published_length(batch_size, size_draw, context_draw, generator)
        length = min(length, max(published, self.min_context))
        return _first(free, torch.rand(free.shape, generator=generator, dtype=torch.float32), length), targets

    def check(self) -> None:
        """Draw masks with the smallest context block and small, middle and large targets, as training will.

        Raises:
            ConfigurationError: if that is impossible; the message says what to change.
        """
        generator = torch.Generator().manual_seed(0)
        context_size = self._block_size(0.0, self.context_scale, (1.0, 1.0))
        for size_draw in (0.0, 0.5, 1.0):
            target_size = self._block_size(size_draw, self.target_scale, self.target_aspect)
            self._draw(CHECKED, context_size, target_size, generator)

    def _draw(
        self, batch_size: int, context_size: BlockSize, target_size: BlockSize, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """(B, N) true where an image's context may lie, in at least ``min_context`` places, and targets (B, M, T)."""
        targets = self._place_targets(batch_size, target_size, generator)
        free = self._free(self._place(batch_size, context_size, generator), targets)
        for redraw in range(REDRAWS):
            short = (free.sum(1) < self.min_context).nonzero().squeeze(1)
            if not len(short):
                break
            if redraw >= REDRAWS // 2:  # first another context block, as published; then other targets too
                targets[short] = self._place_targets(len(short), target_size, generator)
            free[short] = self._free(self._place(len(short), context_size, generator), targets[short])
        if int(free.sum(1).min()) < self.min_context:
            raise ConfigurationError(
                f"{self.num_targets} targets of {target_size[0]} x {target_size[1]} patches leave fewer than "
                f"{self.min_context} context patches on a {self.grid_size[0]} x {self.grid_size[1]} grid: lower "
                "num_targets, target_scale or min_context, or use smaller patches."
            )
        return free, targets

    def _published_length(self, batch_size: int, size_draw: float, context_draw: float, generator: Generator) -> int:
        """Context length that ``paper`` has for these sizes: the shortest of a group."""
        paper = MultiBlockMasks(self.grid_size, self.num_targets, mode="paper")
        target_size = paper._block_size(size_draw, self.target_scale, self.target_aspect)
        context_size = paper._block_size(context_draw, self.context_scale, (1.0, 1.0))
        count = min(batch_size, self.context_group)
        targets = paper._place_targets(count, target_size, generator)
        return int(paper._free(paper._place(count, context_size, generator), targets).sum(1).min())

    def _block_size(self, draw: float, scale: tuple[float, float], aspect: tuple[float, float]) -> BlockSize:
        rows, columns = self.grid_size
        area = int(rows * columns * (scale[0] + draw * (scale[1] - scale[0])))
        ratio = aspect[0] + draw * (aspect[1] - aspect[0])
        # the published code keeps blocks smaller than the grid, so that a position can always be drawn
        margin = 1 if self.mode == "paper" else 0
        height = min(max(round((area * ratio) ** 0.5), 1), max(rows - margin, 1))
        width = min(max(round((area / ratio) ** 0.5), 1), max(columns - margin, 1))
        return height, width

    def _place_targets(self, batch_size: int, size: BlockSize, generator: Generator) -> Tensor:
        """(B, M, T) patch indices."""
        blocks = self._place(batch_size * self.num_targets, size, generator)
        return blocks.view(batch_size, self.num_targets, -1)

    def _place(self, count: int, size: BlockSize, generator: Generator) -> Tensor:
        """Patch indices (count, height * width) of blocks at random positions."""
        rows, columns = self.grid_size
        height, width = size
        last = 0 if self.mode == "paper" else 1
        top = torch.randint(max(rows - height + last, 1), (count, 1, 1), generator=generator)
        left = torch.randint(max(columns - width + last, 1), (count, 1, 1), generator=generator)
        block = (top + torch.arange(height).view(1, -1, 1)) * columns + left + torch.arange(width).view(1, 1, -1)
        return block.flatten(1)

    def _free(self, context: Tensor, targets: Tensor) -> Tensor:
        """(B, N) true where a patch is in the context block and in no target."""
        free = torch.zeros(len(context), self.grid_size[0] * self.grid_size[1], dtype=torch.bool)
        return free.scatter_(1, context, True).scatter_(1, targets.flatten(1), False)


def check_image_size(images: Tensor, size: int) -> None:
    """See that training images (B, C, H, W) have the size for which masks and positions are made, in pixels.

    Raises:
        ConfigurationError: where they have not.
    """
    if images.shape[-2:] != (size, size):
        raise ConfigurationError(
            f"training images have {images.shape[-2]} x {images.shape[-1]} pixels, and the model is made for {size} x "
            f"{size}: set image_size, or resize the images. (dynamic_img_size is for evaluation.)"
        )


def raster_order(free: Tensor) -> Tensor:
    """A priority in [0, 1) that grows along the raster, for each row of (B, N)."""
    return torch.arange(free.shape[1], dtype=torch.float32).div(free.shape[1]).expand(free.shape)


def _first(free: Tensor, order: Tensor, length: int) -> Tensor:
    """(B, length) indices in raster order of the free patches that come first in ``order`` (B, N), in [0, 1)."""
    kept = order.masked_fill(~free, 2.0).topk(length, dim=1, largest=False, sorted=False).indices
    return kept.sort(dim=1).values
