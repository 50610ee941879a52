"""Probe images by log density: the highest and the lowest, and the same images over training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    array,
    canvas,
    colours,
    nothing,
    panel,
    paper,
    percentile_bar,
    picture,
    plain,
    render,
    some,
    stamp,
)

MOST_ROWS, MOST_IMAGES, MOST_THUMBNAILS = 11, 8, 16
MOST_NUMBERED = 12
GALLERY_WIDTH = 1040


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
        rows: up to 11 of up to 8 images a side are shown. Grey levels are common to all.

    Returns:
        (3, H, W), uint8.
    """
    rows = rows[:MOST_ROWS]
    span = pixel_range([images for row in rows for images in (row.highest, row.lowest)])
    if span is None:
        return nothing("log density (nats) of probe images", width=GALLERY_WIDTH)
    left_count = min(MOST_IMAGES, max(len(row.highest) for row in rows))
    right_count = min(MOST_IMAGES, max(len(row.lowest) for row in rows))
    titles = [plain(row.title, 14) for row in rows]
    name = 24 + 10 * max(map(len, titles))
    head, text, gap, middle, edge = 46, 26, 4, 28, 14
    count = left_count + right_count
    tile = int(min(84, (GALLERY_WIDTH - name - middle - edge - gap * count) / count))
    half = [left_count * (tile + gap), right_count * (tile + gap)]
    needed = name + sum(half) + middle + edge
    width = max(GALLERY_WIDTH * 2 // 3, needed)
    name += (width - needed) // 2
    height = head + len(rows) * (tile + text) + 8

    figure = canvas(width, height)
    sheet = paper(figure)
    starts = (name, name + half[0] + middle)
    headers = ("highest log density (nats)", "lowest log density (nats)")
    for start, extent, header in zip(starts, half, headers, strict=True):
        if extent:
            wide = extent >= 270  # else only "highest", "lowest": half a row may be one image wide
            x = start + (extent - gap) / 2 if wide else start
            words, side = (header, "center") if wide else (header.split()[0], "left")
            figure.text(x / width, 1 - head / 2 / height, words, ha=side, va="center", fontsize=LABEL, color=INK)
    for position, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = head + position * (tile + text)
        figure.text(
            (name - 10) / width,
            1 - (top + tile / 2) / height,
            title,
            ha="right",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
        both = ((row.highest, row.high_scores), (row.lowest, row.low_scores))
        for start, (images, scores) in zip(starts, both, strict=True):
            values = array(scores)
            for column, image in enumerate(thumbnails(images[:MOST_IMAGES], tile, span)):
                x = start + column * (tile + gap)
                sheet[top : top + tile, x : x + tile] = image
                stamp(sheet, _number(float(values[column])), x=x + tile / 2, y=top + tile + 11, points=TINY)
    return render(figure, sheet)


@picture
def gallery_over_training_picture(images: Tensor, steps: Sequence[int], percentiles: Tensor) -> Tensor:
    """The same images at every measurement: a thumbnail, then a strip coloured by percentile of log density.

    Args:
        images: (n, C, H, W); up to 16 are shown.
        steps: S optimizer steps, in the order of measurement.
        percentiles: (S, n), 0 to 100 %, of log density among the probe at that step; NaN is grey.

    Returns:
        (3, H, W), uint8.
    """
    values = array(percentiles).T[:MOST_THUMBNAILS]
    images = images[:MOST_THUMBNAILS]
    if values.shape != (len(images), len(steps)):
        raise ValueError(f"{len(images)} images, {len(steps)} steps, but percentiles {tuple(percentiles.shape)}.")
    title = "the same images over training"
    if not np.isfinite(values).any():
        return nothing(title)
    count, measured = values.shape
    tile, gap, left, beside, above, below = (min(80, 900 // count), 4, 30, 130, 50, 78)
    pitch = tile + gap
    room = 960 - left - tile - 12 - beside
    cell = min(160, max(1, room // measured))
    needed = left + tile + 12 + cell * measured + beside
    width = max(700, needed)
    left += (width - needed) // 2
    start = left + tile + 12
    height = max(300, above + pitch * count + below)
    bottom = height - above - pitch * count
    end = start + cell * measured
    figure = canvas(width, height)

    span = pixel_range([images]) or (0.0, 1.0)
    sheet = paper(figure)
    shades = colours(values / 100)
    for row, image in enumerate(thumbnails(images, tile, span)):
        y = above + row * pitch + gap // 2
        sheet[y : y + tile, left : left + tile] = image
        sheet[y : y + tile, start:end] = np.repeat((255 * shades[row]).round().astype(np.uint8), cell, axis=0)
        for position, value in enumerate(values[row] if measured <= MOST_NUMBERED else ()):
            if math.isfinite(value):
                dark = float(shades[row, position] @ (0.299, 0.587, 0.114)) < 0.5
                x = start + (position + 0.5) * cell
                stamp(sheet, f"{value:.0f}".replace("-0", "0"), x=x, y=y + tile / 2, points=SMALL, white=dark)

    axes = panel(figure, left=start, right=width - end, top=above, bottom=bottom, grid=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(-0.5, measured - 0.5)
    longest = max(len(str(step)) for step in steps)
    ticks = some(measured, max(1, min(measured, cell * measured // (12 * longest + 12))))
    axes.set_xticks(ticks, [str(steps[tick]) for tick in ticks])
    axes.set_xlabel("optimizer step", fontsize=LABEL, color=INK)
    figure.text(0.5, 1 - above / 2 / height, title, fontsize=TITLE, color=INK, ha="center", va="center")
    percentile_bar(
        figure,
        sheet,
        left=end + 22,
        top=above,
        height=max(pitch * count, 160),
        label="percentile of log density" if pitch * count >= 260 else "percentile",
    )
    return render(figure, sheet)


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
    """Images scaled to a square of pixels, centred on white; what is not finite is grey.

    Args:
        images: (n, C, H, W).
        tile: side of the square, pixels.
        span: the values that become black and white.

    Returns:
        (n, tile, tile, 3).
    """
    if not len(images):
        return np.zeros((0, tile, tile, 3), dtype=np.uint8)
    low, high = span
    shown = _channels(images).float()
    height, width = shown.shape[-2:]
    scale = tile / max(height, width)
    target = (max(1, round(height * scale)), max(1, round(width * scale)))
    shown = functional.interpolate(shown, size=target, mode="area" if scale < 1 else "nearest").double()
    shown = ((shown - low) / max(high - low, 1e-300)).clamp(0, 1)
    shown = torch.where(torch.isfinite(shown), shown, 0.5)
    sheet = torch.full((len(shown), 3, tile, tile), 255, dtype=torch.uint8)
    top, left = (tile - target[0]) // 2, (tile - target[1]) // 2
    sheet[:, :, top : top + target[0], left : left + target[1]] = (255 * shown).round().to(torch.uint8)
    pixels: Pixels = sheet.permute(0, 2, 3, 1).numpy()
    return pixels


def _channels(images: Tensor) -> Tensor:
    """(n, C, H, W) on the CPU -> the same with the channels that are shown: 3, or the first."""
    images = images.detach().cpu()
    return images if images.shape[1] == 3 else images[:, :1]


def _number(score: float) -> str:
    """In at most six characters, to fit under a thumbnail."""
    if not math.isfinite(score):
        return "n/a" if math.isnan(score) else f"{score:.0f}"  # inf, -inf
    if abs(score) < 999.95:
        return f"{score:.1f}"
    return f"{score:.0f}" if abs(score) < 99999.5 else f"{score:.0e}".replace("e+0", "e").replace("e+", "e")
