"""A chart by few artists of matplotlib's: its axes make a dozen objects for each tick, which takes 40 ms a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .figure import GREY, INK, SMALL, size
from .scales import Floats, limits, log_limits, log_ticks, to_numpy

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

TICK, PAD = 7, 15  # pixels: length of a tick, distance of its number


@dataclass(frozen=True)
class Scale:
    """The scale of one side of a chart.

    Attributes:
        low, high: values at its ends, ``low`` the smaller.
        logarithmic: positive values by their logarithm; others have no place.
    """

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def over(cls, values: ArrayLike, margin: float = 0.04, *, logarithmic: bool = False) -> Scale:
        """Choose ends that have room for all finite values."""
        there = to_numpy(values)
        ends = log_limits(there, margin) if logarithmic else limits(there, margin)
        return cls(*ends, logarithmic)

    def places(self, values: ArrayLike) -> Floats:
        """Shares of the way from the lower to the upper end; NaN for values that have no place."""
        there = to_numpy(values)
        low, high = self.low, self.high
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
            there = np.log10(np.where(there > 0, there, np.nan))
        shares: Floats = (there - low) / (high - low)
        return shares

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Choose at most so many round values between the ends; a logarithmic scale has as many as it needs.

        Args:
            most: number of ticks.
            whole: whole numbers alone.
        """
        if self.logarithmic:
            return log_ticks(self.low, self.high)
        from matplotlib.ticker import MaxNLocator

        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(self.low, self.high)
        # around a single whole number the locator chooses fractions nevertheless
        chosen = {round(tick) for tick in found} if whole else found
        return [float(tick) for tick in sorted(chosen) if self.low <= tick <= self.high]

    def numbers(self, ticks: Sequence[float]) -> list[str]:
        """Write the numbers of ticks, on a linear scale with as many decimals as tell all of them apart."""
        if self.logarithmic or max(abs(self.low), abs(self.high)) >= 1e5:
            return [f"{tick:g}" for tick in ticks]
        decimals = next((places for places in range(9) if all(_has(tick, places) for tick in ticks)), 9)
        return [f"{tick:.{decimals}f}" for tick in ticks]


@dataclass(frozen=True)
class Frame:
    """A rectangle of a picture with a scale along each side.

    Attributes:
        figure: gets the artists.
        left, top, wide, tall: pixels from the figure's left upper corner, and size.
        x, y: scales.
    """

    figure: Figure
    left: float
    top: float
    wide: float
    tall: float
    x: Scale
    y: Scale

    def across(self, values: ArrayLike) -> Floats:
        """Pixels from the figure's left edge."""
        return self.left + self.wide * self.x.places(values)

    def up(self, values: ArrayLike) -> Floats:
        """Pixels from the figure's lower edge, from which matplotlib counts."""
        return size(self.figure)[1] - self.top - self.tall * (1.0 - self.y.places(values))

    def down(self, value: float) -> float:
        """Pixels from the upper edge of the frame, within it; its lower edge for what has no place."""
        place = float(self.y.places(value))
        return self.tall * (1.0 - min(max(place, 0.0), 1.0)) if math.isfinite(place) else self.tall

    def rule(self, x_ticks: Sequence[float], y_ticks: Sequence[float], *, numbers_below: bool) -> None:
        """Draw the left and the lower side, grid lines, and numbers at the left and, if wanted, below."""
        bottom = size(self.figure)[1] - self.top - self.tall
        right, ceiling = self.left + self.wide, bottom + self.tall
        columns, rows = self.across(x_ticks).tolist(), self.up(y_ticks).tolist()
        grid = [[(at, bottom), (at, ceiling)] for at in columns] + [[(self.left, at), (right, at)] for at in rows]
        self._segments(grid, GREY, 0.8, alpha=0.3, zorder=0.5)
        sides = [[(self.left, bottom), (right, bottom)]]
        if y_ticks:
            sides += [[(self.left, bottom), (self.left, ceiling)]]
        self._segments(sides, GREY, 0.8, zorder=2.5)
        marks = [[(self.left - TICK, at), (self.left, at)] for at in rows]
        marks += [[(at, bottom - TICK), (at, bottom)] for at in columns if numbers_below]
        self._segments(marks, INK, 0.8, zorder=2.0)
        for text, at in zip(self.y.numbers(y_ticks), rows, strict=True):
            self._write(text, self.left - PAD, at, ha="right", va="center_baseline")
        for text, at in zip(self.x.numbers(x_ticks), columns, strict=True) if numbers_below else ():
            self._write(text, at, bottom - PAD, ha="center", va="top")

    def line(self, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
        """Draw a line, or marks, which break where a value has no place."""
        from matplotlib.lines import Line2D

        self._add(Line2D(self.across(x), self.up(y), **style))

    def band(self, low: ArrayLike, high: ArrayLike, x: ArrayLike | None = None, *, colour: str) -> None:
        """Shade what lies between two values, or between two lines over ``x``, which breaks where one has no place."""
        from matplotlib.collections import PolyCollection

        across = self.across([self.x.low, self.x.high] if x is None else x)
        lower, upper = (np.broadcast_to(self.up(end), across.shape) for end in (low, high))
        there = np.ma.masked_invalid(across + lower + upper)
        outlines = [
            np.stack(
                [
                    np.concatenate([across[part], across[part][::-1]]),
                    np.concatenate([lower[part], upper[part][::-1]]),
                ],
                axis=1,
            )
            for part in np.ma.clump_unmasked(there)  # type: ignore[no-untyped-call]  # numpy's has no hints
        ]
        self._add(PolyCollection(outlines, facecolors=colour, alpha=0.25, linewidths=0, zorder=1))

    def _segments(self, segments: list[Any], colour: str, width: float, **style: Any) -> None:
        from matplotlib.collections import LineCollection

        if segments:
            self._add(LineCollection(segments, colors=colour, linewidths=width, **style))

    def _write(self, text: str, x: float, y: float, **style: Any) -> None:
        width, height = size(self.figure)
        self.figure.text(x / width, y / height, text, fontsize=SMALL, color=INK, **style)

    def _add(self, artist: Artist) -> None:
        from matplotlib.transforms import IdentityTransform

        artist.set_transform(IdentityTransform())  # pixels
        self.figure.add_artist(artist)


def _has(value: float, decimals: int) -> bool:
    """Return true if a number has no more decimals."""
    return abs(round(value, decimals) - value) < 1e-9
