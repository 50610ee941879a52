"""What the predictor is asked: a picture of masks."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

TARGET_COLOUR = to_rgb("tab:orange")
MOST_IMAGES, MOST_TARGETS = 6, 4


def log_masks(
    trainer: pl.Trainer, images: Tensor, context: Tensor, targets: Tensor, *, grid_size: tuple[int, int]
) -> None:
    """Draw the first images of a batch with their masks to every TensorBoard, as ``train/masks``."""
    if not trainer.is_global_zero:
        return
    experiments: list[Any] = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    boards = [experiment for experiment in experiments if hasattr(experiment, "add_image")]
    if boards:
        first = slice(MOST_IMAGES)
        picture = masks_picture(images[first], context[first], targets[first], grid_size=grid_size)
        for board in boards:
            board.add_image("train/masks", picture, trainer.global_step)


@torch.no_grad()
def masks_picture(images: Tensor, context: Tensor, targets: Tensor, *, grid_size: tuple[int, int]) -> Tensor:
    """A row an image: the image, what the context encoder sees of it, and each target block.

    Args:
        images: (B, C, H, W).
        context: (B, V) patch indices.
        targets: (B, M, T) patch indices.
        grid_size: patches along height and width.

    Returns:
        (3, height, width) picture with values from 0 to 1.
    """
    pixels = _displayed(images.float().cpu())
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    targets = targets[:, :MOST_TARGETS].cpu()
    seen = _patches(context.cpu().unsqueeze(1), grid_size, size).float()
    asked = _patches(targets, grid_size, size).float()
    colour = torch.tensor(TARGET_COLOUR).view(3, 1, 1)
    panels = [pixels, pixels * seen + (1.0 - seen)]
    for m in range(targets.shape[1]):
        faint = 0.25 * pixels + 0.75
        panels.append(asked[:, m : m + 1] * (0.6 * pixels + 0.4 * colour) + (1.0 - asked[:, m : m + 1]) * faint)
    titles = ["image", f"context, {context.shape[1]} patches"]
    titles += [f"target {m + 1}, {targets.shape[2]} patches" for m in range(targets.shape[1])]
    return _grid(panels, titles)


def _displayed(images: Tensor) -> Tensor:
    """(B, 3, H, W) between 0 and 1, each image stretched over its own range."""
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


def _patches(index: Tensor, grid_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, M, H, W) true on the pixels of the patches (B, M, T)."""
    rows, columns = grid_size
    chosen = torch.zeros(*index.shape[:2], rows * columns).scatter_(2, index, 1.0).unflatten(2, (rows, columns))
    return F.interpolate(chosen, size=size, mode="nearest") > 0.5


def _grid(panels: list[Tensor], titles: list[str]) -> Tensor:
    count = len(panels[0])
    figure = Figure(figsize=(1.5 * len(panels), 1.5 * count + 0.3), dpi=100, layout="constrained")
    axes = figure.subplots(count, len(panels), squeeze=False)
    for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        axes[0, column].set_title(title, fontsize=8)
        for row in range(count):
            axes[row, column].imshow(panel[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255.0
