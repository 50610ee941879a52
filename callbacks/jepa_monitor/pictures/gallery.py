"""Probe images by log density: the highest and the lowest, and the same images over training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..runtime.concise import Concise
from .figure import (
    INK,
    LABEL,
    SMALL,
    TINY,
    TITLE,
    Pixels,
    canvas,
    colours,
    nothing,
    panel,
    paper,
    paste,
    percentile_bar,
    picture,
    plain,
    render,
    stamp,
)
from .scales import Floats, evenly_spaced, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS, MOST_IMAGES, MOST_THUMBNAILS = 11, 5, 16
MOST_NUMBERED = 12
# pixels of a gallery: its width, its header, the scores under a row, between images, between the sides, at the right
GALLERY_WIDTH, HEAD, TEXT, GAP, MIDDLE, EDGE = 640, 46, 26, 4, 24, 14
# pixels around the strips of a gallery over training: a thumbnail's distance, and the room at three edges
APART, LEFT, BESIDE, ABOVE, BELOW = 12, 30, 130, 50, 78


@dataclass(frozen=True, repr=False)
class GalleryRow(Concise):
    """Images of one class, or of all.

    Args:
        title: stands at the left.
        highest: (n, C, H, W), best first; C is 1 or 3 (of other numbers the first channel is shown).
        lowest: (m, C, H, W), worst first.
        high_scores: (n,) nats.
        low_scores: (m,) nats.
    """

    title: str
    highest: Tensor
    lowest: Tensor
    high_scores: Tensor
    low_scores: Tensor


@picture
def gallery_picture(rows: Sequence[GalleryRow]) -> Tensor:
    """Images of highest log density on the left, of lowest on the right, the score in nats under each.

    Args:
        rows: up to 11 of up to 5 images a side are shown. Grey levels are common to all.

    Returns:
        (4, H, W), uint8.
    """
    rows = rows[:MOST_ROWS]
    span = pixel_range([images for row in rows for images in (row.highest, row.lowest)])
    if span is None:
        return nothing("log density (nats) of probe images", width=GALLERY_WIDTH)
    titles = [plain(row.title, 14) for row in rows]
    layout = _Layout.of(rows, longest_title=max(map(len, titles)))
    figure = canvas(layout.width, layout.height)
    sheet = paper(figure)
    _draw_headers(figure, layout)
    for position, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = HEAD + position * (layout.tile + TEXT)
        figure.text(
            (layout.names - 10) / layout.width,
            1 - (top + layout.tile / 2) / layout.height,
            title,
            ha="right",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
        _put_images(sheet, row.highest, row.high_scores, span, left=layout.starts[0], top=top, tile=layout.tile)
        _put_images(sheet, row.lowest, row.low_scores, span, left=layout.starts[1], top=top, tile=layout.tile)
    return render(figure, sheet)


@dataclass(frozen=True)
class _Layout:
    """Places of a gallery's parts, pixels: titles, images of highest log density, images of lowest.

    Attributes:
        width, height: size of the picture.
        names: where titles end.
        tile: side of an image.
        extents: widths of the two sides, with the gap behind each image.
    """

    width: int
    height: int
    names: int
    tile: int
    extents: tuple[int, int]

    @classmethod
    def of(cls, rows: Sequence[GalleryRow], *, longest_title: int) -> _Layout:
        """Make images as large as the width allows, and centre them where the picture could be narrower."""
        left = min(MOST_IMAGES, max(len(row.highest) for row in rows))
        right = min(MOST_IMAGES, max(len(row.lowest) for row in rows))
        names = 24 + 10 * longest_title
        tile = int(min(84, (GALLERY_WIDTH - names - MIDDLE - EDGE - GAP * (left + right)) / (left + right)))
        extents = left * (tile + GAP), right * (tile + GAP)
        needed = names + sum(extents) + MIDDLE + EDGE
        width = max(600, needed)
        return cls(width, HEAD + len(rows) * (tile + TEXT) + 8, names + (width - needed) // 2, tile, extents)

    @property
    def starts(self) -> tuple[int, int]:
        """Left edges of the two sides."""
        return self.names, self.names + self.extents[0] + MIDDLE


def _draw_headers(figure: Figure, layout: _Layout) -> None:
    headers = ("highest log density, nats", "lowest log density, nats")
    for start, extent, header in zip(layout.starts, layout.extents, headers, strict=True):
        if extent:
            wide = extent >= 240  # else only "highest", "lowest": half a row may be one image wide
            x = start + (extent - GAP) / 2 if wide else start
            words, side = (header, "center") if wide else (header.split()[0], "left")
            x, y = x / layout.width, 1 - HEAD / 2 / layout.height
            figure.text(x, y, words, ha=side, va="center", fontsize=LABEL, color=INK)


def _put_images(
    sheet: Pixels, images: Tensor, scores: Tensor, span: tuple[float, float], *, left: int, top: int, tile: int
) -> None:
    """Write one side of a row, and a score under each image."""
    values = to_numpy(scores)
    for column, image in enumerate(thumbnails(images[:MOST_IMAGES], tile, span)):
        x = left + column * (tile + GAP)
        paste(sheet, image, left=x, top=top)
        stamp(sheet, _number(float(values[column])), x=x + tile / 2, y=top + tile + 11, points=TINY)


@picture
def gallery_over_training_picture(images: Tensor, steps: Sequence[int], percentiles: Tensor) -> Tensor:
    """The same images at every measurement: a thumbnail, then a strip coloured by percentile of log density.

    Args:
        images: (n, C, H, W); up to 16 are shown.
        steps: S optimizer steps, in the order of measurement.
        percentiles: (S, n), 0 to 100 %, of log density among the probe at that step; NaN is grey.

    Returns:
        (4, H, W), uint8.
    """
    values = to_numpy(percentiles).T[:MOST_THUMBNAILS]
    images = images[:MOST_THUMBNAILS]
    if values.shape != (len(images), len(steps)):
        raise ValueError(f"{len(images)} images, {len(steps)} steps, but percentiles {tuple(percentiles.shape)}.")
    title = "the same images over training"
    if not np.isfinite(values).any():
        return nothing(title)
    strips = _Strips.of(*values.shape)
    figure = canvas(strips.width, strips.height)
    sheet = paper(figure)
    _put_strips(sheet, strips, images, values)
    _draw_steps(figure, strips, steps)
    figure.text(0.5, 1 - ABOVE / 2 / strips.height, title, fontsize=TITLE, color=INK, ha="center", va="center")
    tall = strips.pitch * strips.count
    label = "percentile of log density" if tall >= 260 else "percentile"
    percentile_bar(figure, sheet, left=strips.end + 22, top=ABOVE, height=max(tall, 160), label=label)
    return render(figure, sheet)


@dataclass(frozen=True)
class _Strips:
    """Places of thumbnails and of the strips beside them, pixels.

    Attributes:
        width, height: size of the picture.
        count, measured: number of images and of steps.
        left: left edge of the thumbnails.
        tile: side of a thumbnail.
        cell: width of one step.
    """

    width: int
    height: int
    count: int
    measured: int
    left: int
    tile: int
    cell: int

    @classmethod
    def of(cls, count: int, measured: int) -> _Strips:
        """Make thumbnails and cells as large as there is room, and centre them where the picture could be narrower."""
        tile = min(56, 640 // count)
        room = 640 - LEFT - tile - APART - BESIDE
        cell = min(160, max(1, room // measured))
        needed = LEFT + tile + APART + cell * measured + BESIDE
        width = max(620, needed)
        height = max(300, ABOVE + (tile + GAP) * count + BELOW)
        return cls(width, height, count, measured, LEFT + (width - needed) // 2, tile, cell)

    @property
    def pitch(self) -> int:
        """Distance from one image to the next."""
        return self.tile + GAP

    @property
    def start(self) -> int:
        """Left edge of the strips."""
        return self.left + self.tile + APART

    @property
    def end(self) -> int:
        """Right edge of the strips."""
        return self.start + self.cell * self.measured


def _put_strips(sheet: Pixels, strips: _Strips, images: Tensor, values: Floats) -> None:
    """Write thumbnails, and beside each one coloured cell a step, with its number where there are few."""
    shades, tile = colours(values / 100), strips.tile
    for row, image in enumerate(thumbnails(images, tile, pixel_range([images]) or (0.0, 1.0))):
        y = ABOVE + row * strips.pitch + GAP // 2
        paste(sheet, image, left=strips.left, top=y)
        cells = np.repeat((255 * shades[row]).round().astype(np.uint8), strips.cell, axis=0)
        paste(sheet, np.repeat(cells[None], tile, axis=0), left=strips.start, top=y)
        for position, value in enumerate(values[row] if strips.measured <= MOST_NUMBERED else ()):
            if math.isfinite(value):
                level = 255 if float(shades[row, position] @ (0.299, 0.587, 0.114)) < 0.5 else 0
                x = strips.start + (position + 0.5) * strips.cell
                stamp(sheet, f"{value:.0f}".replace("-0", "0"), x=x, y=y + tile / 2, points=SMALL, level=level)


def _draw_steps(figure: Figure, strips: _Strips, steps: Sequence[int]) -> None:
    """Draw the axis of optimizer steps under the strips, with as many named as there is room for."""
    bottom = strips.height - ABOVE - strips.pitch * strips.count
    axes = panel(figure, left=strips.start, right=strips.width - strips.end, top=ABOVE, bottom=bottom, grid=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(-0.5, strips.measured - 0.5)
    longest = max(len(str(step)) for step in steps)
    room = strips.cell * strips.measured // (12 * longest + 12)
    ticks = evenly_spaced(strips.measured, max(1, min(strips.measured, room)))
    axes.set_xticks(ticks, [str(steps[tick]) for tick in ticks])
    axes.set_xlabel("optimizer step", fontsize=LABEL, color=INK)


def pixel_range(images: Sequence[Tensor]) -> tuple[float, float] | None:
    """Lowest and highest finite pixel of all images; ``None`` if there is none.

    Args:
        images: (n, C, H, W) each.
    """
    found = []
    for part in images:
        pixels = _channels(part).float()
        if not bool(torch.isfinite(pixels).all()):
            pixels = pixels[torch.isfinite(pixels)]
        if pixels.numel():
            found.append((float(pixels.min()), float(pixels.max())))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def thumbnails(images: Tensor, tile: int, span: tuple[float, float]) -> Pixels:
    """Images scaled to a square of pixels, centred, with nothing beside them; what is not finite is grey.

    Args:
        images: (n, C, H, W).
        tile: side of the square, pixels.
        span: the values that become black and white.

    Returns:
        (n, tile, tile, 4), with opacity.
    """
    if not len(images):
        return np.zeros((0, tile, tile, 4), dtype=np.uint8)
    low, high = span
    shown = _channels(images).float()
    height, width = shown.shape[-2:]
    scale = tile / max(height, width)
    target = (max(1, round(height * scale)), max(1, round(width * scale)))
    shown = functional.interpolate(shown, size=target, mode="area" if scale < 1 else "nearest").double()
    shown = ((shown - low) / max(high - low, 1e-300)).clamp(0, 1)
    shown = torch.where(torch.isfinite(shown), shown, 0.5)
    sheet = torch.zeros((len(shown), 4, tile, tile), dtype=torch.uint8)
    top, left = (tile - target[0]) // 2, (tile - target[1]) // 2
    place = sheet[:, :, top : top + target[0], left : left + target[1]]
    place[:, :3], place[:, 3] = (255 * shown).round().to(torch.uint8), 255
    pixels: Pixels = sheet.permute(0, 2, 3, 1).numpy()
    return pixels


def _channels(images: Tensor) -> Tensor:
    """Channels that are shown, 3 or the first: (n, C, H, W) -> (n, 3 or 1, H, W), on the CPU."""
    images = images.detach().cpu()
    return images if images.shape[1] == 3 else images[:, :1]


def _number(score: float) -> str:
    """Write a score in at most six characters, to fit under a thumbnail."""
    if not math.isfinite(score):
        return "n/a" if math.isnan(score) else f"{score:.0f}"  # inf, -inf
    if abs(score) < 999.95:
        return f"{score:.1f}"
    return f"{score:.0f}" if abs(score) < 99999.5 else f"{score:.0e}".replace("e+0", "e").replace("e+", "e")
