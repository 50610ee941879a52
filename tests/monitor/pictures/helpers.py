"""Pictures of usual data, of odd data, and of none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_monitor import pictures

NAN, INF = math.nan, math.inf


def line(*values: float, label: str = "log density", **settings: Any) -> pictures.Line:
    return pictures.Line(label, range(0, 10 * len(values), 10), values, **settings)


def story(*charts: pictures.Chart, alarm: tuple[float, ...] = (), images: int = 0) -> Tensor:
    alarms = {"collapse": (range(len(alarm)), alarm)}
    sides = {side: torch.rand(images, 1, 8, 8) for side in ("highest", "lowest")} if images else {}
    return pictures.story_picture(charts, alarms, **sides)


def row(count: int = 4, channels: int = 1, title: str = "all") -> pictures.GalleryRow:
    images = torch.rand(2, count, channels, 8, 8)
    scores = torch.randn(2, count).sort(1)[0]
    return pictures.GalleryRow(title, images[0], images[1], scores[0], scores[1])


def spectra(count: int = 5, length: int = 12) -> Tensor:
    return torch.randn(count, length).sort(1, descending=True)[0]


def plane(count: int = 50, value: float | None = None) -> Tensor:
    values = torch.randn(count)
    return pictures.heat_map_picture(
        torch.randn(count, 2), {"truth": values, "score": values if value is None else torch.full((count,), value)}
    )


def histogram(*others: float, aurocs: dict[str, float] | None = None) -> Tensor:
    sets = {"probe": np.linspace(-3, 3, 40)} | {f"_set {k}": np.array([v]) for k, v in enumerate(others)}
    return pictures.histogram_picture(sets, name="log_density", aurocs=aurocs)


def over_training(count: int, steps: int, value: float = 40.0) -> Tensor:
    values = torch.full((steps, count), value)
    return pictures.gallery_over_training_picture(torch.rand(count, 1, 6, 6), range(steps), values)


USUAL: dict[str, Callable[[], Tensor]] = {
    "spectrum": lambda: pictures.spectrum_picture(spectra(), 3),
    "spectrum over training": lambda: pictures.spectrum_over_training_picture([0, 1, 2, 3, 4], spectra(), 3),
    "qq": lambda: pictures.norm_qq_picture(torch.randn(64, 8), torch.randn(64, 5)),
    "scatter": lambda: pictures.scatter_picture(torch.randn(64), np.arange(64), spearman=0.5, name="log_density"),
    "histogram": lambda: histogram(1.0, 9.0, aurocs={"_set 0": 0.75}),
    "plane": plane,
    "gallery": lambda: pictures.gallery_picture([row(), row(8, title="Ankle boot")]),
    "gallery over training": lambda: over_training(3, 5),
    "story": lambda: story(pictures.Chart("ranking", [line(0.1, 0.7), line(0.5, 0.5, dashed=True)]), images=3),
}


ODD: dict[str, Callable[[], Tensor]] = {
    "spectrum of one": lambda: pictures.spectrum_picture(spectra(1, 1), 1),
    "spectrum with NaN": lambda: pictures.spectrum_picture(torch.cat([spectra(), torch.full((1, 12), NAN)]), 3),
    "spectrum with zeros": lambda: pictures.spectrum_picture(torch.tensor([[0.0, -INF], [1.0, -INF]]), 1),
    "spectrum out of range": lambda: pictures.spectrum_picture(torch.tensor([[2e3, -2e3]]), 9),
    "spectra of one step": lambda: pictures.spectrum_over_training_picture([7], spectra(1), 3),
    "spectra of one value": lambda: pictures.spectrum_over_training_picture([7], torch.zeros(1, 1), 1),
    "spectra with NaN": lambda: pictures.spectrum_over_training_picture(
        [0, 1], torch.tensor([[NAN, NAN], [0, -INF]]), 1
    ),
    "spectra of 32 steps": lambda: pictures.spectrum_over_training_picture(range(32), spectra(32, 200), 100),
    "qq of one": lambda: pictures.norm_qq_picture(torch.randn(1, 4), None),
    "qq of a constant": lambda: pictures.norm_qq_picture(torch.ones(9, 4), torch.zeros(9, 4)),
    "qq with NaN": lambda: pictures.norm_qq_picture(
        torch.tensor([[NAN, 1.0], [INF, 1.0], [1.0, 1.0]]), torch.zeros(3, 0)
    ),
    "qq of large norms": lambda: pictures.norm_qq_picture(torch.full((3, 2), 1e30), torch.full((3, 2), 1e-30)),
    "scatter of one": lambda: pictures.scatter_picture([1.0], [1e9], spearman=NAN, name="$_$"),
    "scatter with NaN": lambda: pictures.scatter_picture([1.0, NAN], [2.0, 3.0], spearman=NAN, name="x"),
    "histogram of one": lambda: histogram(5.0),
    "histogram with NaN": lambda: histogram(NAN, INF, aurocs={"_set 1": NAN}),
    "histogram of a constant": lambda: pictures.histogram_picture({"probe": np.full(5, 1e8)}, name="log_density"),
    "histogram of twelve": lambda: histogram(*range(11)),
    "plane of one": lambda: plane(1),
    "plane with NaN": lambda: plane(9, NAN),
    "plane of a constant": lambda: plane(9, 2.0),
    "plane of five": lambda: pictures.heat_map_picture(torch.zeros(3, 2), {str(k): torch.arange(3) for k in range(5)}),
    "gallery of one": lambda: pictures.gallery_picture([row(1)]),
    "gallery of one side": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("", torch.rand(2, 3, 9, 5), torch.zeros(0, 3, 9, 5), torch.ones(2), torch.ones(0))]
    ),
    "gallery with NaN": lambda: pictures.gallery_picture(
        [
            pictures.GalleryRow(
                "a", torch.eye(4).log()[None, None], torch.ones(1, 2, 4, 4), *torch.tensor([[NAN], [-INF]])
            )
        ]
    ),
    "gallery of a constant": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("a", torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), *torch.tensor([[1e9], [-1e30]]))]
    ),
    "gallery of many": lambda: pictures.gallery_picture([row(12, 3, "a rather long name of a class")] * 20),
    "story of one measurement": lambda: story(pictures.Chart("ranking", [line(0.1)])),
    "story with NaN": lambda: story(pictures.Chart("ranking", [line(0.1, NAN), line(NAN, NAN)]), alarm=(0.0, 1.0, NAN)),
    "story of many lines": lambda: story(pictures.Chart("x", [line(1.0, 1e9)] * 12, logarithmic=True), images=1),
    "one image over training": lambda: over_training(1, 1),
    "images over many steps": lambda: over_training(20, 40),
}


EMPTY: dict[str, Callable[[], Tensor]] = {
    "spectrum": lambda: pictures.spectrum_picture(torch.full((3, 4), NAN), 2),
    "spectrum of none": lambda: pictures.spectrum_picture(torch.zeros(0, 4), 2),
    "spectra": lambda: pictures.spectrum_over_training_picture([1], torch.full((1, 4), NAN), 2),
    "spectra of none": lambda: pictures.spectrum_over_training_picture([], torch.zeros(0, 4), 2),
    "qq": lambda: pictures.norm_qq_picture(torch.full((3, 4), NAN), None),
    "qq of a collapsed embedding": lambda: pictures.norm_qq_picture(torch.zeros(3, 4), torch.zeros(3, 4)),
    "scatter": lambda: pictures.scatter_picture([NAN], [1.0], spearman=NAN, name="x"),
    "histogram": lambda: pictures.histogram_picture({"probe": np.array([NAN])}, name="x"),
    "plane": lambda: pictures.heat_map_picture(torch.zeros(2, 2), {"x": torch.full((2,), NAN)}),
    "plane of no place": lambda: pictures.heat_map_picture(torch.full((2, 2), NAN), {"x": torch.ones(2)}),
    "gallery": lambda: pictures.gallery_picture([]),
    "gallery without pixels": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("a", torch.full((1, 1, 4, 4), NAN), torch.zeros(0, 1, 4, 4), torch.ones(1), torch.ones(0))]
    ),
    "over training": lambda: over_training(2, 3, NAN),
    "story": lambda: story(pictures.Chart("ranking", [line(NAN, NAN)])),
    "over no training": lambda: over_training(2, 0),
}


def inked(image: Tensor) -> float:
    """Share of pixels that are not transparent."""
    return float((image[3] > 5).double().mean())


def has(image: Tensor, shade: np.ndarray) -> bool:
    wanted = torch.from_numpy((255 * np.asarray(shade)).round()).to(torch.int16)
    return bool(((image[:3].to(torch.int16) - wanted[:, None, None]).abs() <= 1).all(0).sum() > 200)


def contrast(first: str, second: str) -> float:
    """Contrast of two colours, #rrggbb, as WCAG defines it: 1 to 21."""
    luminances = []
    for colour in (first, second):
        level = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminances) / min(luminances)
