"""The story of a run in one picture: charts over steps, each line labelled at its end, and images at their side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .figure import (
    BLUE,
    GREY,
    INK,
    LABEL,
    RED,
    SMALL,
    TITLE,
    WIDTH,
    Pixels,
    canvas,
    nothing,
    paper,
    paste,
    picture,
    plain,
    render,
    size,
)
from .frame import Frame, Scale
from .gallery import pixel_range, thumbnails
from .scales import Floats, limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

MOST_STEPS, MOST_VALUES = 3, 4  # ticks
LEAST_SPAN = 0.1  # of a linear scale, so that rounding does not look like a change
MOST_SHOWN = 3  # images of the highest, and of the lowest density
SHADE = "shade: 95 % CI"  # what the interval around a line is
# pixels: around the charts, a title, a line of words, a row of alarms, the words at the ends of lines, the way to them,
# an image, a gap
LEFT, ABOVE, BELOW, HEADING, WORDS, ROW, ENDS, AFTER, TILE, GAP = 78, 12, 72, 40, 23, 24, 176, 8, 88, 6


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: words at its end, before which its last value stands.
        steps: (S) optimizer steps.
        values: (S); the line breaks where one is NaN.
        colour: its colour, and that of its words.
        dashed: a baseline, which training does not change.
        interval: (S) lower and upper ends of the interval of 95 % around it, shaded.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    colour: str = BLUE
    dashed: bool = False
    interval: tuple[Sequence[float], Sequence[float]] | None = None

    @property
    def extent(self) -> Floats:
        """All values that its chart must have room for."""
        return np.array([*self.values, *(end for ends in self.interval or () for end in ends)], dtype=np.float64)

    @property
    def words(self) -> str:
        """Label behind the last value; says so where that is NaN."""
        last = self.values[-1]
        return f"{_short(last)} {self.label}" if math.isfinite(last) else f"NaN {self.label}"

    @property
    def height(self) -> float:
        """Last finite value, where the words stand; NaN without one."""
        finite = [value for value in self.values if math.isfinite(value)]
        return finite[-1] if finite else math.nan


@dataclass(frozen=True)
class Chart:
    """Lines over steps, under a title.

    Attributes:
        title: words above it.
        lines: those whose values are all NaN are words alone.
        tall: height of the axes, pixels.
        logarithmic: scale of the values, of which only positive ones are drawn.
        band: lowest and highest value of a shaded band, and its words.
        floor: value that the scale reaches down to; ``None`` for the lowest of a line.
        bounds: horizontal lines: value, words or none, and colour.
    """

    title: str
    lines: Sequence[Line]
    tall: int = 150
    logarithmic: bool = False
    floor: float | None = None
    band: tuple[float, float, str] | None = None
    bounds: Sequence[tuple[float, str, str]] = ()


@picture
def story_picture(
    charts: Sequence[Chart],
    alarms: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    *,
    verdict: str = "",
    highest: Tensor | None = None,
    lowest: Tensor | None = None,
) -> Tensor:
    """A sentence, charts one below the other, alarms under them, and images at their side.

    Args:
        charts: one or more, from the top down.
        alarms: name of an alarm to its steps and values, 1 while it is on; those that were never on need no row.
        verdict: sentence above all, or none.
        highest: (n, C, H, W) most typical images, of which three are shown; or ``None``.
        lowest: (n, C, H, W) least typical images.

    Returns:
        (4, H, W), uint8.
    """
    lines = [line for chart in charts for line in chart.lines]
    if not any(math.isfinite(line.height) for line in lines):
        return nothing("the run so far")
    rung = {name: rows for name, rows in alarms.items() if np.nansum(rows[1]) > 0}
    sides = [images for images in (highest, lowest) if images is not None and len(images)]
    above = ABOVE + (HEADING if verdict else 0)
    deep = sum(HEADING + chart.tall for chart in charts) + HEADING + ROW * len(rung) + BELOW
    figure = canvas(WIDTH, above + max(deep, _depth_of_images(sides)))
    right = ENDS + (TILE + 2 * GAP if sides else 0)
    steps, wide = Scale.over([step for line in lines for step in line.steps]), WIDTH - LEFT - right
    top = above
    if verdict:
        is_on = any(values[-1] > 0 for _, values in rung.values())
        _write_title(figure, verdict, ABOVE, RED if is_on else INK)
    for chart in charts:
        _write_title(figure, chart.title, top)
        _draw_chart(Frame(figure, LEFT, top + HEADING, wide, chart.tall, steps, _scale(chart)), chart)
        top += HEADING + chart.tall
    states = [value for _, values in alarms.values() for value in values]
    quiet = "alarms: none" if not states or np.isfinite(states).any() else "alarms: not known"
    _write_title(figure, "alarms" if rung else quiet, top)
    rows = Scale(-0.5, max(len(rung), 1) - 0.5)
    _draw_alarms(Frame(figure, LEFT, top + HEADING, wide, max(1, ROW * len(rung)), steps, rows), rung)
    sheet = paper(figure)
    if sides:
        columns = {"most": highest, "least": lowest}
        _put_images(figure, sheet, columns, pixel_range(sides) or (0.0, 1.0), top=above)
    return render(figure, sheet)


def _depth_of_images(sides: Sequence[Tensor]) -> int:
    """Pixels that the images at the side take from the top down."""
    return sum(2 * WORDS + GAP + (TILE + GAP) * min(len(images), MOST_SHOWN) + ROW for images in sides)


def _write_title(figure: Figure, title: str, top: float, colour: str = INK) -> None:
    _write(figure, title, left=LEFT - 60, top=top + HEADING - 16, colour=colour, points=TITLE)


def _scale(chart: Chart) -> Scale:
    """Choose a scale with room for the lines, the band and the bounds of a chart."""
    shown = [line.extent for line in chart.lines]
    shown += [np.array([bound for bound, _, _ in chart.bounds]), np.array(chart.band[:2] if chart.band else ())]
    shown += [np.array([] if chart.floor is None else [chart.floor])]
    if chart.logarithmic:
        return Scale.over(np.concatenate(shown), logarithmic=True)
    low, high = limits(np.concatenate(shown), 0.08)
    wider = max(0.0, LEAST_SPAN * max(1.0, abs(low), abs(high)) - (high - low)) / 2
    return Scale(low - wider, high + wider)


def _draw_chart(frame: Frame, chart: Chart) -> None:
    frame.rule(frame.x.ticks(MOST_STEPS, whole=True), frame.y.ticks(MOST_VALUES), numbers_below=False)
    ends = [frame.x.low, frame.x.high]
    words = []
    if chart.band is not None:
        frame.band(*chart.band[:2], colour=GREY)
        words.append((math.sqrt(chart.band[0] * chart.band[1]), chart.band[2], INK))
    for bound, name, colour in chart.bounds:
        frame.line(ends, [bound, bound], color=colour, linewidth=1.4, linestyle=":")
        words += [(bound, name, colour)] if name else []
    for line in chart.lines:
        _draw_line(frame, line)
        words.append((line.height, line.words, line.colour))
        words += [] if line.interval is None else [(line.height, SHADE, line.colour)]
    heights = [frame.down(value) for value, _, _ in words]
    for down, (_, text, colour) in zip(spread(heights, chart.tall, WORDS), words, strict=True):
        _write_beside(frame, text, down=down, colour=colour)


def _draw_line(frame: Frame, line: Line) -> None:
    style, marker = ("--", "") if line.dashed else ("-", "o")
    frame.line(
        line.steps, line.values, linestyle=style, marker=marker, markersize=3.5, color=line.colour, linewidth=2.2
    )
    if line.interval is not None:
        frame.band(*line.interval, line.steps, colour=line.colour)


def spread(heights: Sequence[float], tall: float, apart: float) -> list[float]:
    """Move heights apart, in their order, so that words at them do not overlap.

    Args:
        heights: pixels from the top.
        tall: height that they should stay within.
        apart: least distance.

    Returns:
        The new heights, in the order given; the last ones lie beyond ``tall`` only where there is no room above.
    """
    order = sorted(range(len(heights)), key=lambda position: heights[position])
    moved, lowest = {}, tall - apart * (len(order) - 1)
    before = -math.inf
    for rank, position in enumerate(order):
        before = max(before + apart, min(heights[position], max(lowest + apart * rank, apart * rank)))
        moved[position] = before
    return [moved[position] for position in range(len(heights))]


def _draw_alarms(frame: Frame, rung: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Draw one row an alarm: a square at each measurement while it is on, a dot while it is off; steps below."""
    frame.rule(frame.x.ticks(MOST_STEPS, whole=True), [], numbers_below=True)
    for row, (name, (steps, values)) in enumerate(rung.items()):
        height = len(rung) - 1 - row
        for is_on, marker, colour in ((False, ".", GREY), (True, "s", RED)):
            at = [step for step, value in zip(steps, values, strict=True) if (value > 0) == is_on]
            size_of_mark = 7 if is_on else 4
            frame.line(at, [height] * len(at), linestyle="", marker=marker, color=colour, markersize=size_of_mark)
        _write_beside(frame, plain(name), down=ROW * (row + 0.5), colour=RED)
    middle, below = frame.left + frame.wide / 2, frame.top + frame.tall + BELOW - 20
    _write(frame.figure, "optimizer step", left=middle, top=below, colour=INK, points=LABEL, ha="center")


def _put_images(
    figure: Figure, sheet: Pixels, sides: Mapping[str, Tensor | None], span: tuple[float, float], *, top: int
) -> None:
    """Write the columns of images from that height down, with words above each."""
    left, top = WIDTH - TILE - 2 * GAP, top + WORDS // 2
    for name, images in _there(sides):
        for word in (name, "typical"):
            _write(figure, word, left=left, top=top, colour=INK)
            top += WORDS
        for image in thumbnails(images[:MOST_SHOWN], TILE, span):
            paste(sheet, image, left=left, top=top - WORDS // 2 + GAP)
            top += TILE + GAP
        top += ROW


def _there(sides: Mapping[str, Tensor | None]) -> Iterator[tuple[str, Tensor]]:
    for name, images in sides.items():
        if images is not None and len(images):
            yield name, images


def _write_beside(frame: Frame, text: str, *, down: float, colour: str) -> None:
    """Write words at the right of a frame, so many pixels down, as many letters as the images leave room for."""
    words = _write(frame.figure, text, left=frame.left + frame.wide + AFTER, top=frame.top + down, colour=colour)
    while words.get_window_extent().width > ENDS - AFTER - GAP:
        text = text[:-1].rstrip(" \\")  # nothing is left of an escaped letter
        words.set_text(f"{text}…")


def _write(
    figure: Figure, text: str, *, left: float, top: float, colour: str, points: float = SMALL, ha: str = "left"
) -> Text:
    """Write words from the left, around a height from the top, pixels."""
    width, height = size(figure)
    return figure.text(left / width, 1 - top / height, text, ha=ha, va="center", fontsize=points, color=colour)


def _short(value: float) -> str:
    """Write a number in at most four characters where that can be done."""
    if abs(value) >= 99.5:
        return f"{value:.0f}" if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e")
    if abs(value) >= 9.95:
        return f"{value:.0f}"
    if 0.0 < abs(value) < 0.005:
        return f"{value:.0e}".replace("e-0", "e-")  # on a logarithmic axis 0.00 is nowhere
    return f"{value:.1f}" if abs(value) >= 1.995 else f"{value:.2f}"
