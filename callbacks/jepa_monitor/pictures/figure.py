"""The canvas all pictures share: sizes in pixels, fixed margins, one look, and no trace left in matplotlib.

Pictures are transparent with words in mid-grey, because TensorBoard shows them on white and on dark grey, and narrow,
because it shows them first at a width of 250 pixels, where words must still be legible.

matplotlib is imported inside the functions: it takes about 200 ms, and ``import jepa_monitor`` should not pay for it.
Constrained layout would draw each figure twice, hence the fixed margins.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .scales import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]
Parameters = ParamSpec("Parameters")

# of Okabe and Ito, which people with any kind of colour vision tell apart
BLUE, ORANGE, GREEN, PURPLE, RED = "#3a9bdc", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
OTHERS = (RED, GREEN, PURPLE, ORANGE)
GREY, INK = "#888888", "#858585"  # mid-grey is as far from white as from TensorBoard's dark grey
INK_LEVEL = int(INK[1:3], 16)
MISSING = (0.6, 0.6, 0.6)
WIDTH, HEIGHT, DPI = 640, 450, 150
BELOW, ENTRY = 118, 32  # pixels for the x axis and a legend, and for a line of one that is stacked
TITLE, LABEL, SMALL, TINY = 10.0, 9.0, 8.5, 7.0  # points
NOTHING = "no finite values"
# what stays the user's: where figures go, and fonts, which names in other scripts may need
_USERS = ("backend", "interactive", "toolbar", "timezone", "font.family", "font.sans-serif")


def picture(draw: Callable[Parameters, Tensor]) -> Callable[Parameters, Tensor]:
    """Draw in matplotlib's default style, whatever style the user has chosen, which is there again afterwards."""

    @functools.wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Tensor:
        with _default_style():
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def _default_style() -> Iterator[None]:
    import matplotlib

    changed = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(_USERS) and matplotlib.rcParams[key] != value
    }
    if not changed:  # the usual case: nothing global is touched
        yield
        return
    with matplotlib.rc_context(changed):
        yield


def canvas(width: int = WIDTH, height: int = HEIGHT) -> Figure:
    """Make an empty, transparent figure of that many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def panel(
    figure: Figure,
    *,
    left: float = 125,
    right: float = 30,
    top: float = 55,
    bottom: float = BELOW,
    title: str = "",
    x: str = "",
    y: str = "",
    grid: bool = True,
) -> Axes:
    """Add axes with these margins to the figure's edges, in pixels."""
    width, height = size(figure)
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    axes.set_facecolor("none")
    for side in axes.spines.values():
        side.set_color(GREY)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, color=GREY, alpha=0.3, linewidth=0.8)
    axes.tick_params(labelsize=SMALL, colors=INK)
    axes.set_title(title, fontsize=TITLE, color=INK, y=1.0)  # a given height: seeking a free one takes 4 ms an axes
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    return axes


def size(figure: Figure) -> tuple[int, int]:
    """Width and height in pixels."""
    width, height = figure.get_size_inches() * figure.dpi
    return round(float(width)), round(float(height))


def render(figure: Figure, sheet: Pixels | None = None) -> Tensor:
    """Render a figure, (4, H, W) with red, green, blue and opacity, uint8, below what :func:`paper` holds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = figure.canvas
    assert isinstance(drawn, FigureCanvasAgg)
    drawn.draw()
    pixels = np.asarray(drawn.buffer_rgba())
    if sheet is not None:
        pixels = np.where(sheet[..., 3:] > 0, sheet, pixels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def paper(figure: Figure) -> Pixels:
    """Transparent pixels, (H, W, 4), for images of final size: imshow and figimage would resample them, for 40 ms."""
    width, height = size(figure)
    return np.zeros((height, width, 4), dtype=np.uint8)


def paste(sheet: Pixels, pixels: Pixels, *, left: int, top: int) -> None:
    """Put (h, w, 3) or (h, w, 4) pixels on a sheet; three channels are opaque."""
    height, width, channels = pixels.shape
    place = sheet[top : top + height, left : left + width]
    place[..., 3] = 255
    place[..., :channels] = pixels


def nothing(title: str, *, width: int = WIDTH, height: int = HEIGHT) -> Tensor:
    """Make a picture that says that there is nothing to draw."""
    figure = canvas(width, height)
    figure.text(0.5, 1.0 - 32 / height, title, fontsize=TITLE, color=INK, ha="center", va="center")
    figure.text(0.5, 0.5, NOTHING, fontsize=14, color=GREY, ha="center", va="center")
    return render(figure)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Add a legend of one row under the name of the x axis."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=SMALL, frameon=False, labelcolor=INK)


@dataclass(frozen=True)
class Entry:
    """One entry of a legend: a line of this colour, style and width (points), and its words."""

    text: str
    colour: str
    style: str = "-"
    width: float = 1.6
    alpha: float = 1.0


def legend_stacked(figure: Figure, entries: Sequence[Entry], *, left: float, top: float) -> None:
    """Add a legend of one column from there down, pixels; by hand, as matplotlib's takes 2 ms an entry."""
    from matplotlib.lines import Line2D

    width, height = size(figure)
    for position, entry in enumerate(entries):
        y = top + ENTRY * position
        middle = 1.0 - (y + 10) / height
        style: Any = entry.style
        figure.add_artist(
            Line2D(
                [left / width, (left + 26) / width],
                [middle, middle],
                color=entry.colour,
                linestyle=style,
                linewidth=entry.width,
                alpha=entry.alpha,
                solid_capstyle="butt",
            )
        )
        figure.text((left + 36) / width, 1.0 - y / height, entry.text, va="top", fontsize=SMALL, color=INK)


def colours(fractions: ArrayLike, name: str = "viridis") -> Floats:
    """Colours of fractions 0 to 1, (...) -> (..., 3) RGB; what is not finite is grey."""
    import matplotlib

    values = np.asarray(fractions, dtype=np.float64)
    finite = np.isfinite(values)
    rgb: Floats = np.array(matplotlib.colormaps[name](np.where(finite, np.clip(values, 0.0, 1.0), 0.0)))[..., :3]
    rgb[~finite] = MISSING
    return rgb


def colour_bar(
    figure: Figure,
    sheet: Pixels,
    shades: Floats,
    ticks: Mapping[float, str],
    *,
    left: int,
    top: int,
    height: int,
    label: str = "",
) -> None:
    """Add a bar 22 pixels wide with its words at the right; pixel by pixel, as axes take 5 ms.

    Args:
        figure: gets the words.
        sheet: (H, W, 4), gets the colours.
        shades: (S, 3), 0 to 1, from the top down.
        ticks: height from the top, 0 to S, to name.
        left, top, height: pixels; with a label, 115 are needed at the right of ``left``.
        label: meaning of the colours.
    """
    wide, (full_width, full_height) = 22, size(figure)
    fields = np.linspace(0, len(shades), height, endpoint=False).astype(int)
    bar = np.repeat((255 * shades[fields, None]).round().astype(np.uint8), wide, axis=1)
    paste(sheet, bar, left=left, top=top)
    tick = np.full((1, 5, 3), INK_LEVEL, dtype=np.uint8)
    for place, name in ticks.items():
        down = top + place / len(shades) * height
        paste(sheet, tick, left=left + wide, top=min(round(down), top + height - 1))
        figure.text(
            (left + wide + 10) / full_width,
            1 - down / full_height,
            name,
            va="center_baseline",
            fontsize=SMALL,
            color=INK,
        )
    if label:
        figure.text(
            (left + wide + 68) / full_width,
            1 - (top + height / 2) / full_height,
            label,
            rotation=90,
            ha="center",
            va="center",
            fontsize=LABEL,
            color=INK,
        )


def percentile_bar(figure: Figure, sheet: Pixels, *, left: int, top: int, height: int, label: str) -> None:
    """Add a colour bar from 0 to 100 %."""
    names = {200.0 - 2 * percent: str(percent) for percent in (0, 25, 50, 75, 100)}
    colour_bar(figure, sheet, colours(np.linspace(1, 0, 200)), names, left=left, top=top, height=height, label=label)


def stamp(sheet: Pixels, text: str, *, x: float, y: float, points: float, level: int = INK_LEVEL) -> None:
    """Write a number into an image: a text of matplotlib's takes 0.5 ms, and galleries have hundreds.

    Args:
        sheet: (H, W, 4), written to.
        text: characters out of ``0123456789-.enaif/``.
        x, y: its centre, pixels from the left and the top.
        points: height of its letters.
        level: grey level of the letters, 0 (black) to 255.
    """
    glyphs = _glyphs(points)
    ink = np.concatenate([glyphs[character] for character in text], axis=1)
    height, width = ink.shape
    top, left = max(0, round(y - height / 2)), max(0, round(x - width / 2))
    where = sheet[top : top + height, left : left + width]
    cover = ink[: where.shape[0], : where.shape[1], None]
    below = where[..., 3:] / 255.0 * (1 - cover)
    opacity = cover + below
    where[..., :3] = ((where[..., :3] * below + level * cover) / np.maximum(opacity, 1e-6)).round()
    where[..., 3:] = (255 * opacity).round()


@functools.lru_cache(maxsize=8)
def _glyphs(points: float) -> dict[str, Floats]:
    """Map characters to their ink, (h, w) from 0 to 1, on one baseline; h is that of the digits and room below."""
    characters = "0123456789-.enaif/"
    pitch, height, apart = 40, 48, max(1, round(points * DPI / 72 / 14))
    figure = canvas(pitch * len(characters), height)
    for position, character in enumerate(characters):
        figure.text(
            (position + 0.25) / len(characters), 0.3, character, fontsize=points, color="black", family="DejaVu Sans"
        )
    ink = render(figure)[3].numpy() / 255.0
    digits = np.flatnonzero(ink[:, : 10 * pitch].any(1))
    ink = ink[digits[0] - 1 : digits[-1] + 3]  # a line of two more below keeps the slash whole
    found = {}
    for position, character in enumerate(characters):
        cell = ink[:, position * pitch : (position + 1) * pitch]
        columns = np.flatnonzero(cell.any(0))
        found[character] = np.pad(cell[:, columns[0] : columns[-1] + 1], ((0, 0), (apart, 0)))
    return found


def plain(text: str, most: int = 40) -> str:
    """Keep a caller's name as it stands: no formulas, at most so many characters, and not left out of legends."""
    short = " ".join(text.split())
    short = short if len(short) <= most else short[: most - 1] + "…"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")
