"""Pictures of masks and views, and a page on the ``train/`` tags: what TensorBoard shows of training besides curves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
MOST_IMAGES, MOST_TARGETS, MOST_VIEWS = 6, 4, 8
DPI, PANEL, GAP, TITLE = 100, 140, 5, 52  # dots per inch, and pixels: width of a panel, around it, above all
INK = "#858585"  # is as far from white as from TensorBoard's dark grey
MEANINGS = {
    "train/loss": "weighted sum of the terms below, of the global batch: what is minimised",
    "train/loss_tokens": "prediction error of the target tokens",
    "train/loss_embedding": "mean squared error of the predicted embedding",
    "train/loss_centre": "mean squared distance of the views' embeddings from the centre of the global ones",
    "train/loss_anticollapse": "the term against collapse, such as SIGReg",
    "train/loss_spectral": "half the sum of the online encoder's squared spectral norms",
    "train/ema_momentum": "share of the target encoder that a step keeps",
    "train/lr": "learning rate of the step",
    "train/weight_decay": "weight decay of the step, of those parameters that decay",
    "train/context_tokens": "patches of an image that the context encoder sees",
    "train/target_tokens": "patches of an image that are predicted, over all of its blocks",
    "train/masks": "picture: images, what the context encoder sees of them, and what is predicted",
    "train/views": "picture: the views of images, each over its own range of values",
}


def explanation(logged: Collection[str]) -> str:
    """Write a Markdown table of the tags logged; losses have no common scale, so a rising one is no alarm by itself."""
    rows = [f"| `{tag}` | {meaning} |" for tag, meaning in MEANINGS.items() if tag in logged]
    return "\n".join(["| tag | what it is |", "|---|---|", *rows])


def log_text(trainer: pl.Trainer, tag: str, text: str) -> None:
    """Write a page of Markdown to every logger that takes one, on the first process."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if add_text is not None:
            add_text(tag, text)


def log_masks(
    trainer: pl.Trainer, images: Tensor, context: Tensor, targets: Tensor, *, grid_size: tuple[int, int]
) -> None:
    """Draw the first images of a batch with their masks to every TensorBoard, as ``train/masks``."""
    if boards := _boards(trainer):
        first = slice(MOST_IMAGES)
        picture = masks_picture(images[first], context[first], targets[first], grid_size=grid_size)
        for board in boards:
            board.add_image("train/masks", picture, trainer.global_step)


def log_views(trainer: pl.Trainer, views: Sequence[Tensor], *, num_global: int) -> None:
    """Draw the views of the first images of a batch to every TensorBoard, as ``train/views``."""
    if boards := _boards(trainer):
        picture = views_picture([view[:MOST_IMAGES] for view in views[:MOST_VIEWS]], num_global=num_global)
        for board in boards:
            board.add_image("train/views", picture, trainer.global_step)


def _boards(trainer: pl.Trainer) -> list[Any]:
    """List the experiments of loggers that take pictures; none beyond the first process."""
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers if trainer.is_global_zero]
    return [experiment for experiment in experiments if hasattr(experiment, "add_image")]


@torch.no_grad()
def views_picture(views: Sequence[Tensor], *, num_global: int) -> Tensor:
    """Draw a row for each image, with all of its views.

    Args:
        views: batches (B, C, H, W), of which local ones may be of another size.
        num_global: views that are called global; the others are called local.

    Returns:
        (4, height, width) picture, red, green, blue and opacity, with values from 0 to 1.
    """
    numbers = range(1, len(views) + 1)
    titles = [f"global\nview {n}" if n <= num_global else f"local\nview {n - num_global}" for n in numbers]
    return _grid([_opaque(displayed(view.float().cpu())) for view in views], titles)


@torch.no_grad()
def masks_picture(images: Tensor, context: Tensor, targets: Tensor, *, grid_size: tuple[int, int]) -> Tensor:
    """Draw a row for each image: the image, what the context encoder sees of it, and each target block.

    Args:
        images: (B, C, H, W).
        context: (B, V) patch indices.
        targets: (B, M, T) patch indices.
        grid_size: patches along height and width.

    Returns:
        (4, height, width) picture, red, green, blue and opacity, with values from 0 to 1.
    """
    pixels = displayed(images.float().cpu())
    size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    targets = targets[:, :MOST_TARGETS].cpu()
    seen = patch_pixels(context.cpu().unsqueeze(1), grid_size, size).float()
    asked = patch_pixels(targets, grid_size, size).float()
    colour = torch.tensor(TARGET_COLOUR).view(3, 1, 1)
    panels = [_opaque(pixels), torch.cat([pixels, seen], dim=1)]
    for block in asked.split(1, dim=1):
        coloured = block * (0.6 * pixels + 0.4 * colour) + (1.0 - block) * pixels
        panels.append(torch.cat([coloured, 0.25 + 0.75 * block], dim=1))
    titles = ["image", f"context\n{context.shape[1]} patches"]
    titles += [f"target {m + 1}\n{targets.shape[2]} patches" for m in range(targets.shape[1])]
    return _grid(panels, titles)


def displayed(images: Tensor) -> Tensor:
    """(B, 3, H, W) between 0 and 1, each image stretched over its own range."""
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


def _opaque(images: Tensor) -> Tensor:
    """(B, 3, H, W) with a fourth channel, of full opacity."""
    return torch.cat([images, torch.ones_like(images[:, :1])], dim=1)


def patch_pixels(index: Tensor, grid_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, M, H, W) true on the pixels of the patches (B, M, T)."""
    rows, columns = grid_size
    chosen = torch.zeros(*index.shape[:2], rows * columns).scatter_(2, index, 1.0).unflatten(2, (rows, columns))
    return F.interpolate(chosen, size=size, mode="nearest") > 0.5


def _grid(panels: list[Tensor], titles: list[str]) -> Tensor:
    """Put panels (B, 4, H, W) side by side below their titles, a row for each image.

    matplotlib writes the titles alone: an axis for each panel would take it 10 ms.
    """
    height = round(PANEL * panels[0].shape[2] / panels[0].shape[3])
    # a mixture of colours may round to a little more than 1
    cells = [F.interpolate(panel.float().clamp(0.0, 1.0), (height, PANEL), mode="nearest") for panel in panels]
    rows = torch.cat([F.pad(cell, (GAP, GAP, 0, 2 * GAP)) for cell in cells], dim=3)
    return torch.cat([_header(titles, rows.shape[3]), *rows], dim=1)


def _header(titles: list[str], width: int) -> Tensor:
    figure = Figure(figsize=(width / DPI, TITLE / DPI), dpi=DPI, facecolor="none")
    for column, title in enumerate(titles):
        figure.text((column + 0.5) / len(titles), 0.1, title, fontsize=12, color=INK, ha="center", va="bottom")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba()).copy()
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255.0
