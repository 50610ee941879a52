"""Figures of one measurement, drawn without pyplot so that the user's own figures are left alone.

Each returns an image of shape (3, H, W), uint8.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

BLUE, ORANGE, GREY = "#1f77b4", "#d95f02", "#888888"


def spectrum_picture(log_singular: Tensor, rank: int) -> Tensor:
    """Singular values of the whitened embedding's Jacobian: median and 10-90 % range over samples, with the rank cut.

    Args:
        log_singular: (N, L) nats, largest first.
        rank: r.
    """
    finite = log_singular[torch.isfinite(log_singular).all(1)].exp()
    low, median, high = (finite.quantile(q, dim=0).numpy() for q in (0.1, 0.5, 0.9))
    index = np.arange(1, len(median) + 1)
    figure, axes = _figure("singular values of the Jacobian")
    axes.vlines(
        index, low, high, color=BLUE, alpha=0.35, linewidth=max(10 - len(index) / 8, 2), label="10-90 % of samples"
    )
    axes.plot(index, median, "o", color=BLUE, markersize=4, label="median")
    axes.axvline(rank + 0.5, color=ORANGE, linestyle="--", label=f"rank r = {rank}")
    axes.set_yscale("log")
    axes.set_xlim(0.5, len(median) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("index k")
    axes.set_ylabel("sigma_k (1 / input unit)")
    return _render(figure, axes)


def scatter_picture(truth: ArrayLike, score: ArrayLike, *, spearman: float, name: str) -> Tensor:
    """Score against true log density, one dot per probe sample."""
    figure, axes = _figure(f"{name} against truth, Spearman {spearman:.3f}")
    axes.plot(np.asarray(truth), np.asarray(score), ".", color=BLUE, markersize=3, alpha=0.6, label="probe sample")
    axes.set_xlabel("true log density (nats)")
    axes.set_ylabel(f"{name} (nats)")
    return _render(figure, axes)


def histogram_picture(sets: dict[str, np.ndarray], *, name: str) -> Tensor:
    """Scores of the probe and of further sets over common bins."""
    figure, axes = _figure(f"{name} of the probe and of other sets")
    finite = {label: values[np.isfinite(values)] for label, values in sets.items()}
    joint = np.concatenate(list(finite.values()))
    low, high = np.quantile(joint, (0.005, 0.995))
    bins = np.linspace(low, high if high > low else low + 1.0, 50).tolist()
    for label, values in finite.items():
        axes.hist(
            np.clip(values, bins[0], bins[-1]), bins=bins, density=True, histtype="step", linewidth=1.5, label=label
        )
    axes.set_xlabel(f"{name} (nats)")
    axes.set_ylabel("share of samples per nat")
    return _render(figure, axes)


def gallery_picture(highest: Tensor, lowest: Tensor, *, high_scores: ArrayLike, low_scores: ArrayLike) -> Tensor:
    """Probe images of highest and of lowest log density.

    Args:
        highest: (n, C, H, W), best first; C is 1 or 3 (of other numbers the first channel is shown).
        lowest: (n, C, H, W), worst first.
        high_scores, low_scores: (n,) nats.
    """
    columns = min(len(highest), 8)
    figure = Figure(figsize=(0.68 * columns + 0.2, 2.3), dpi=180, layout="constrained")
    figure.suptitle("log density (nats): highest above, lowest below", fontsize=10)
    both = torch.cat([highest, lowest]).float()
    both = both[torch.isfinite(both).flatten(1).all(1)] if not torch.isfinite(both).all() else both
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    grid = figure.subplots(2, columns, squeeze=False)
    for row, images, scores in ((0, highest, high_scores), (1, lowest, low_scores)):
        for column in range(columns):
            axes = grid[row, column]
            image = (images[column].float() - low) / max(high - low, 1e-12)
            pixels = image.permute(1, 2, 0) if len(image) == 3 else image[0]
            axes.imshow(pixels.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"{np.asarray(scores)[column]:.1f}", fontsize=8)
            axes.axis("off")
    return _pixels(figure)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.grid(True, color=GREY, alpha=0.25)
    return figure, axes


def _render(figure: Figure, axes: Axes) -> Tensor:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return _pixels(figure)


def _pixels(figure: Figure) -> Tensor:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba()).copy())[..., :3].permute(2, 0, 1)
