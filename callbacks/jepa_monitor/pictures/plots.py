"""Scores against the truth, against other sets, and over a plane of known latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .figure import (
    BLUE,
    DPI,
    ENTRY,
    HEIGHT,
    OTHERS,
    Entry,
    canvas,
    colours,
    legend_below,
    legend_stacked,
    nothing,
    panel,
    paper,
    percentile_bar,
    picture,
    plain,
    render,
)
from .scales import Floats, limits, percentiles, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BINS = 50
X_AXIS = 85  # pixels
HEAT_WIDTH, HEAT_HEIGHT, HEAT_NARROWEST, HEAT_COLUMNS = 640, 420, 620, 2  # pixels, and panels a row
LEFT, BESIDE, GAP, ABOVE, BELOW = 115, 125, 24, 50, 75  # pixels around and between the panels
STYLES = ("-", "--", ":")


@picture
def scatter_picture(
    truth: ArrayLike, score: ArrayLike, *, spearman: float, name: str, truth_name: str = "truth"
) -> Tensor:
    """Score against true log density, one dot a probe sample; pairs that are not finite are left out.

    Args:
        truth: (N,) nats.
        score: (N,) nats.
        spearman: their rank correlation, for the title.
        name: name of the score.
        truth_name: name of the truth, of which there may be several.

    Returns:
        (4, H, W), uint8.
    """
    rho = f"{spearman:.3f}" if math.isfinite(spearman) else "undefined"
    title = f"{plain(name)} and {plain(truth_name)}: Spearman {rho}"
    x, y = to_numpy(truth).ravel(), to_numpy(score).ravel()
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        return nothing(title)
    figure = canvas()
    axes = panel(figure, title=title, x="true log density (nats)", y=f"{plain(name)} (nats)")
    many = int(both.sum())
    label = "probe sample" + (f" ({len(both) - many} of {len(both)} not finite)" if many < len(both) else "")
    axes.plot(
        x[both],
        y[both],
        "o",
        color=BLUE,
        mew=0,
        markersize=float(np.clip(60 / math.sqrt(many), 1.5, 6)),
        alpha=0.6,
        label=label,
    )
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(*limits(x[both]))
    axes.set_ylim(*limits(y[both]))
    legend_below(figure, axes)
    return render(figure)


@picture
def histogram_picture(
    sets: Mapping[str, np.ndarray], *, name: str, aurocs: Mapping[str, float] | None = None
) -> Tensor:
    """Scores of the probe (filled) and of other sets (outlines) over common bins; figure 3 of the JEPA-SCORE paper.

    Args:
        sets: name to (N,) nats, the probe first. The outermost bins also hold what lies beyond them.
        name: name of the score.
        aurocs: name of a set to its AUROC against the probe, 0 to 1.

    Returns:
        (4, H, W), uint8.
    """
    title = f"{plain(name)} of the probe and of other sets" if len(sets) > 1 else f"{plain(name)} of the probe"
    below = X_AXIS + ENTRY * len(sets)
    height = HEIGHT - X_AXIS - ENTRY + below
    finite = {label: values[np.isfinite(values)] for label, values in ((k, to_numpy(v)) for k, v in sets.items())}
    edges = bin_edges([values for values in finite.values() if len(values)])
    if edges is None:
        return nothing(title, height=height)
    beyond = any(((values < edges[0]) | (values > edges[-1])).any() for values in finite.values())
    x = f"{plain(name)} (nats{'; end bins: and beyond' if beyond else ''})"
    figure = canvas(height=height)
    axes = panel(figure, bottom=below, title=title, x=x, y="share of samples per nat")
    entries = []
    for position, (label, values) in enumerate(finite.items()):
        count = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        share = count / (max(len(values), 1) * np.diff(edges))
        words = _words(label, len(values), aurocs or {})
        if position == 0:
            axes.stairs(share, edges, fill=True, facecolor=BLUE, alpha=0.45, edgecolor="none")
            entries.append(Entry(words, BLUE, width=6, alpha=0.45))
        else:
            colour = OTHERS[(position - 1) % len(OTHERS)]
            style = STYLES[(position - 1) // len(OTHERS) % len(STYLES)]
            axes.stairs(share, edges, color=colour, linestyle=style, linewidth=1.6)
            entries.append(Entry(words, colour, style))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(*limits(edges, 0.02))
    axes.set_ylim(bottom=0.0)
    axes.locator_params(axis="y", nbins=6)
    legend_stacked(figure, entries, left=125, top=height - below + 80)
    return render(figure)


def bin_edges(sets: list[Floats]) -> Floats | None:
    """Edges of equal bins from the lowest 0.5 % to the highest 99.5 % quantile of any set, in nats.

    Args:
        sets: (N,) each, finite and not empty.

    Returns:
        (B + 1,), ascending, B from 10 to 50 by the size of the smallest set; ``None`` without sets.
    """
    if not sets:
        return None
    outer = np.array([np.quantile(values, (0.005, 0.995)) for values in sets])
    low, high = float(outer[:, 0].min()), float(outer[:, 1].max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = limits(np.array([low]))
    count = int(np.clip(2 * math.sqrt(min(map(len, sets))), 10, MOST_BINS))
    return np.linspace(low, high, count + 1)


def _words(label: str, count: int, aurocs: Mapping[str, float]) -> str:
    words = plain(label, 24)
    if not count:
        return f"{words}: no finite values"
    if label not in aurocs:
        return words
    value = aurocs[label]
    return f"{words}: AUROC {value:.3f}" if math.isfinite(value) else f"{words}: AUROC undefined"


@picture
def heat_map_picture(coordinates: Tensor, panels: Mapping[str, Tensor]) -> Tensor:
    """The plane of two known latents, coloured by the percentile of a value, one panel a value; figure 2 of the paper.

    Percentiles, because a score is right up to any increasing transform. Dots, because the mean or the interpolation of
    neighbours would hide how noisy a score is.

    Args:
        coordinates: (N, 2) latents.
        panels: name to (N,) values in any unit; what is not finite is grey.

    Returns:
        (4, H, W), uint8.
    """
    points = to_numpy(coordinates)
    there = np.isfinite(points).all(1)
    shown = {label: percentiles(values)[there] for label, values in panels.items()}
    if not any(np.isfinite(values).any() for values in shown.values()):
        return nothing("percentile over the latents", height=HEAT_HEIGHT)
    points = points[there]
    columns = min(len(shown), HEAT_COLUMNS)
    rows = math.ceil(len(shown) / columns)
    side = min(400, (HEAT_WIDTH - LEFT - BESIDE - GAP * (columns - 1)) // columns)
    needed = LEFT + columns * side + GAP * (columns - 1) + BESIDE
    width, height = max(needed, HEAT_NARROWEST), rows * (ABOVE + side) + BELOW
    figure = canvas(width, height)
    margin = (width - needed) // 2
    for position, (label, values) in enumerate(shown.items()):
        row, column = divmod(position, columns)
        from_left = margin + LEFT + column * (side + GAP)
        from_top = row * (side + ABOVE) + ABOVE
        is_lowest = position + columns >= len(shown)
        axes = panel(
            figure,
            left=from_left,
            right=width - from_left - side,
            top=from_top,
            bottom=height - from_top - side,
            title=plain(label, side // 10),
            x="latent 1" if is_lowest else "",
            y="latent 2" if column == 0 else "",
            grid=False,
        )
        _draw_dots(axes, points, values, side=side)
        if column:  # the first panel's ticks serve the row
            axes.set_yticks([])
        if not is_lowest:
            axes.set_xticks([])
    sheet = paper(figure)
    bar, tall = margin + needed - BESIDE + 18, height - ABOVE - BELOW
    percentile_bar(figure, sheet, left=bar, top=ABOVE, height=tall, label="percentile in the panel (%)")
    return render(figure, sheet)


def _draw_dots(axes: Axes, points: Floats, values: Floats, *, side: int) -> None:
    """Draw (N, 2) points in the colours of (N,) percentiles, as large as nearly touch on ``side`` pixels."""
    area = float(np.clip(0.45 * side**2 / len(points), 14, 400)) * (72 / DPI) ** 2  # points squared
    marker = "o" if len(points) <= 500 else "8"  # an octagon is drawn in half the time, and looks round when small
    order = np.argsort(np.isfinite(values), kind="stable")  # grey first, under the others
    axes.scatter(
        points[order, 0], points[order, 1], s=area, c=colours(values[order] / 100), linewidths=0, marker=marker
    )
    axes.set_xlim(*limits(points[:, 0]))
    axes.set_ylim(*limits(points[:, 1]))
    axes.locator_params(nbins=5)
