"""Singular values of the embedding's Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .figure import (
    BELOW,
    BLUE,
    HEIGHT,
    INK,
    LABEL,
    ORANGE,
    WIDTH,
    canvas,
    colour_bar,
    colours,
    legend_below,
    nothing,
    panel,
    paper,
    picture,
    render,
)
from .scales import Floats, evenly_spaced, log_axis, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARKEST, PALEST = 0.2, 0.92  # shades of the first and the last step
MOST_NATS = 600.0  # beyond, a figure has no room: exp(600) is 1e260


@picture
def spectrum_picture(log_singular: Tensor, rank: int) -> Tensor:
    """Median and 10-90 % range over samples, with the rank cut.

    Args:
        log_singular: (N, L) nats, largest first; samples with NaN are left out, -inf is a singular value of 0.
        rank: r, drawn as a cut.

    Returns:
        (4, H, W), uint8.
    """
    title = "singular values of the Jacobian"
    sigma = _singular_values(log_singular)
    sigma = sigma[np.isfinite(sigma).all(1)]
    if not (sigma > 0).any():
        return nothing(title)
    low, median, high = np.quantile(sigma, (0.1, 0.5, 0.9), axis=0)
    shown = np.stack([low, median, high])
    if not (shown > 0).any():
        return nothing(title)
    index = np.arange(1, len(median) + 1)
    figure = canvas()
    axes = panel(figure, title=title, x="number of the direction", y="stretch per unit of input")
    log_axis(axes, "y", shown)
    floor = axes.get_ylim()[0]  # where 0 lies on a logarithmic axis
    axes.vlines(
        index,
        np.maximum(low, floor),
        np.maximum(high, floor),
        color=BLUE,
        alpha=0.35,
        linewidth=max(8 - len(index) / 10, 2),
        label="10-90 % of samples",
    )
    axes.plot(index, np.where(median > 0, median, np.nan), "o", color=BLUE, markersize=4, label="median")
    _cut(axes, rank, len(index))
    legend_below(figure, axes)
    return render(figure)


@picture
def spectrum_over_training_picture(steps: Sequence[int], spectra: Tensor, rank: int) -> Tensor:
    """One line a measured step, from dark (early) to bright (late), with the rank cut.

    Args:
        steps: S optimizer steps, in the order of measurement.
        spectra: (S, L) mean log singular values, nats, largest first; steps without a finite value are left out.
        rank: r, the latest.

    Returns:
        (4, H, W), uint8.
    """
    from matplotlib.collections import LineCollection

    title = "singular values of the Jacobian over training"
    sigma = _singular_values(spectra)
    if len(steps) != len(sigma):
        raise ValueError(f"{len(steps)} steps but {len(sigma)} spectra.")
    sigma[~(sigma > 0)] = np.nan  # a line breaks there
    kept = np.flatnonzero(np.isfinite(sigma).any(1))
    if not len(kept):
        return nothing(title)
    sigma, named = sigma[kept], [steps[position] for position in kept.tolist()]
    index = np.arange(1, sigma.shape[1] + 1)
    figure = canvas()
    axes = panel(figure, right=165, title=title, x="number of the direction", y="stretch per unit of input")
    log_axis(axes, "y", sigma)
    # without the palest yellow, which white swallows, and the darkest violet, which dark grey does
    shades = colours(np.linspace(DARKEST, PALEST, len(kept)) if len(kept) > 1 else [DARKEST])
    points = np.stack([np.broadcast_to(index, sigma.shape), sigma], axis=-1)
    axes.add_collection(LineCollection(list(points), colors=shades, linewidths=1.4))
    if len(index) <= 32:
        axes.scatter(points[..., 0].ravel(), points[..., 1].ravel(), s=9, color=np.repeat(shades, len(index), axis=0))
    _cut(axes, rank, len(index))
    legend_below(figure, axes)

    # a colour bar with one field a step, named as many as there is room for
    full = HEIGHT - 55 - BELOW - 40
    tall = min(full, 45 * len(kept))
    sheet = paper(figure)
    names = {position + 0.5: str(named[position]) for position in evenly_spaced(len(named), 11)}
    colour_bar(figure, sheet, shades, names, left=WIDTH - 140, top=95, height=tall)
    figure.text((WIDTH - 140) / WIDTH, 1 - 75 / HEIGHT, "step", va="center", fontsize=LABEL, color=INK)
    return render(figure, sheet)


def _singular_values(log_singular: Tensor) -> Floats:
    """Singular values from nats, (N, L) -> (N, L), within what a logarithmic axis can show; -inf is 0."""
    nats = to_numpy(log_singular)
    inside = np.clip(nats, -MOST_NATS, MOST_NATS)
    sigma: Floats = np.where(np.isneginf(nats), 0.0, np.exp(inside))
    return np.where(np.isposinf(nats), np.nan, sigma)


def _cut(axes: Axes, rank: int, length: int) -> None:
    axes.axvline(rank + 0.5, color=ORANGE, linestyle="--", label=f"rank r = {rank}")
    last = max(length, rank)
    axes.set_xlim(0.3, last + 0.7)
    axes.set_xticks([tick for tick in _counts(last) if 1 <= tick <= last])


def _counts(last: int) -> list[int]:
    """Ticks of an index: 1, and up to ten round whole numbers to ``last``."""
    stride = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if last <= 10 * step)
    return sorted({1, *range(stride, last + 1, stride)} - ({2} if stride == 2 and last > 12 else set()))
