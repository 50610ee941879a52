"""Figures on a transparent ground that can be read on white and on black."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

GREY = "#808080"
# of middling lightness, and told apart without red and green
BLUE, ORANGE, GREEN, PURPLE = "#3f8fd9", "#e0762f", "#1b9e77", "#a678d8"
SHADES = ("#808080", "#9c5fb5", "#c9568d", "#dd6a4f", "#dd9a28")  # one order
WIDTH, DPI, LARGEST = 8.0, 100, 60_000  # inches, dots an inch, bytes
LETTER_HEIGHT = 0.065  # of axes


def figure(height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure with rows of axes; ``options`` are those of ``Figure.subplots``."""
    made = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False, **options).tolist()
    for line in axes:
        for one in line:
            plain(one)
    return made, axes


def plain(axes: Axes) -> None:
    """Leave two spines, a faint grid, and grey letters."""
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, which="both", labelsize=9)
    axes.grid(True, color=GREY, alpha=0.2, linewidth=0.7)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(GREY)
        text.set_fontsize(10)


def log_scale(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with few numbers that are written out."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def line(axes: Axes, x: Sequence[float], of_seeds: Sequence[Sequence[float]], colour: str) -> float:
    """Draw medians with a band from the smallest to the largest seed, and return the last median."""
    low, mid, high = (np.array([f(found) if found else np.nan for found in of_seeds]) for f in (min, np.median, max))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, mid, "o-", color=colour, markersize=4, linewidth=1.6)
    there = mid[np.isfinite(mid)]
    return float(there[-1]) if len(there) else float("nan")


def label_ends(axes: Axes, texts: Mapping[str, tuple[float, str]]) -> None:
    """Write the names of lines right of the axes, at the heights at which they end, but not over one another.

    Args:
        axes: axes whose limits are settled.
        texts: height and colour by name.
    """
    low, high = axes.get_ylim()
    free = -1.0
    for text, (height, colour) in sorted(texts.items(), key=lambda item: item[1][0]):
        if not np.isfinite(height):
            continue
        at = max((height - low) / (high - low), free)
        free = at + LETTER_HEIGHT
        axes.text(1.02, at, text, transform=axes.transAxes, color=colour, fontsize=9, va="center")


def dots(axes: Axes, names: Sequence[str], of_colours: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw a line of dots for each name, the first above: seeds small, their median large.

    Args:
        axes: where.
        names: names, one a line.
        of_colours: for each colour the values of every name's seeds.
    """
    apart = np.linspace(-0.15, 0.15, len(of_colours))
    for (colour, of_names), above in zip(of_colours.items(), apart, strict=True):
        for height, found in enumerate(of_names):
            axes.plot(found, [height + above] * len(found), "o", color=colour, markersize=3, alpha=0.5)
            axes.plot(np.median(found or np.nan), height + above, "o", color=colour, markersize=7, markeredgewidth=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)


def legend(made: Figure, colours: Mapping[str, str]) -> None:
    """Write what colours mean above the axes."""
    handles = [Line2D([], [], marker="o", ls="", color=colour, label=text) for text, colour in colours.items()]
    _legend(made, handles, "upper")


def legend_of_markers(made: Figure, markers: Mapping[str, str]) -> None:
    """Write what markers mean below the axes."""
    handles = [Line2D([], [], marker=marker, ls="", color=GREY, label=text) for text, marker in markers.items()]
    _legend(made, handles, "lower")


def _legend(made: Figure, handles: list[Line2D], place: str) -> None:
    options = {"frameon": False, "fontsize": 9, "labelcolor": "linecolor", "handletextpad": 0.2}
    made.legend(handles=handles, loc=f"outside {place} center", ncols=len(handles), **options)


def save(made: Figure, path: Path) -> None:
    """Save a picture that is small enough for a page.

    Raises:
        ValueError: if it is not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, transparent=True, pil_kwargs={"optimize": True})
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}.")
