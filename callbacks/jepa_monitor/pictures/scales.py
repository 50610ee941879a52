"""Numbers on the scales of pictures: percentiles, limits and ticks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def to_numpy(values: Tensor | ArrayLike) -> Floats:
    """Bring values to the CPU in float64, wherever and whatever they are."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def percentiles(values: ArrayLike) -> Floats:
    """Percentile of each value among the finite ones, ties in their middle: (N,) -> (N,), 0 to 100, else NaN."""
    vector = np.asarray(values, dtype=np.float64)
    found = np.full(vector.shape, np.nan)
    finite = np.isfinite(vector)
    if finite.any():
        found[finite] = 100.0 * (stats.rankdata(vector[finite]) - 0.5) / finite.sum()
    return found


def limits(values: Floats, margin: float = 0.04) -> tuple[float, float]:
    """Limits of an axis: lowest and highest finite value with a margin; never equal."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    pad = margin * (high - low)
    if pad <= 1e-9 * max(abs(low), abs(high)):
        pad = max(0.5, 1e-3 * abs(low))
    return low - pad, high + pad


def log_limits(values: Floats, margin: float = 0.04) -> tuple[float, float]:
    """Limits of a logarithmic axis over the positive finite values, within what floating point can hold."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = limits(np.log10(values[values > 0]), margin)
    return 10.0 ** max(low, -307.0), 10.0 ** min(high, 307.0)


def log_axis(axes: Axes, which: str, values: Floats) -> None:
    """Make the axis ``x`` or ``y`` logarithmic, over the positive finite values, with ticks that can be read."""
    low, high = log_limits(values)
    ticks = log_ticks(low, high)
    labels = [f"{tick:g}" for tick in ticks]
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_xticks(ticks, labels)
        axes.set_xticks([], minor=True)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.set_yticks(ticks, labels)
        axes.set_yticks([], minor=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Two to ten round numbers from low to high: powers of ten, then 1-2-5, then evenly spaced ones.

    Args:
        low: positive.
        high: larger than low.
    """
    first, last = math.log10(low), math.log10(high)
    if last - first < 0.8:
        return [tick for tick in _even_ticks(low, high) if low <= tick <= high]
    stride = max(1, math.ceil((last - first) / 8))
    exponents = range(math.floor(first), math.ceil(last) + 1)
    if last - first < 3:
        digits = (1, 2, 3, 5, 7) if last - first < 1.5 else (1, 2, 5)
        found = [float(f"{digit}e{power}") for power in exponents for digit in digits]
    else:
        found = [float(f"1e{power}") for power in exponents if power % stride == 0 and power < 308]
    return [tick for tick in found if low <= tick <= high]


def _even_ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    power = math.floor(math.log10(low))  # apart: the locator takes 1e-200 for 0
    scaled = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low / 10.0**power, high / 10.0**power)
    return [float(f"{tick:.12g}e{power}") for tick in scaled]


def evenly_spaced(count: int, most: int) -> list[int]:
    """Choose at most so many of ``count`` indices, a constant stride apart but for the last; both ends are kept."""
    if count <= 1 or most <= 1:
        return list(range(min(count, 1)))
    stride = math.ceil((count - 1) / (most - 1))
    found = list(range(0, count - 1, stride))
    if len(found) > 1 and count - 1 - found[-1] < stride / 2:  # too near to the last
        found.pop()
    return [*found, count - 1]
