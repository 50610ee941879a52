"""Volumes without the full Jacobian: accuracy against cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from jepa_monitor.density import gram_and_embedding
from jepa_monitor.density.volume import leading_volume, log_singular_values
from jepa_monitor.ranking import log_frobenius, spearman
from study import drawing
from study.readings import NUM_REFERENCE, Encoder, known_images, module_of
from study.rows import Row, Study, labels, middle, table
from study.scores import fitted

SIZES = (8, 32, 128, 768)
COLOURS = dict(zip(SIZES, drawing.SHADES[1:], strict=True))
FACTORS = 4  # of the images: the rank r
NUM_IMAGES, NUM_CALIBRATION = 256, 48
SCORED = 1_000  # images that share the cost of a calibration
EXACT = "exact"

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to a volume.

    Attributes:
        rows: combinations of outputs (m, K) that are differentiated, from the encoder and calibration images.
        volume: volumes (N,) in nats, from Gram matrices (N, m, m).
        marker: its mark in the figure.
    """

    rows: Callable[[Encode, Tensor], Tensor | None]
    volume: Callable[[Tensor], Tensor]
    marker: str


def leading_rows(m: int, encode: Encode, images: Tensor) -> Tensor:
    """Return the m leading directions of the mean Gram matrix, (m, K)."""
    mean_gram = gram_and_embedding(encode, images)[0].mean(0)
    return torch.linalg.eigh(mean_gram).eigenvectors.flip(1)[:, :m].T.to(images)


def random_rows(m: int, encode: Encode, images: Tensor) -> Tensor:
    """Return m random orthonormal directions, (m, K)."""
    size = encode(images[:1]).shape[1]
    draws = torch.randn(size, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(draws).Q.T.to(images)


def all_rows(encode: Encode, images: Tensor) -> None:
    """Leave out none, and calibrate nothing."""


def rank_volume(gram: Tensor) -> Tensor:
    """Sum the logs of the r largest singular values."""
    return leading_volume(log_singular_values(gram), FACTORS)


METHODS = {
    EXACT: Method(all_rows, rank_volume, "D"),
    "subspace, r rows": Method(partial(leading_rows, FACTORS), rank_volume, "o"),
    "subspace, 2 r rows": Method(partial(leading_rows, 2 * FACTORS), rank_volume, "o"),
    "random rows, 2 r": Method(partial(random_rows, 2 * FACTORS), rank_volume, "s"),
    "Frobenius norm, 2 r random rows": Method(partial(random_rows, 2 * FACTORS), log_frobenius, "X"),
}


@torch.no_grad()
def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Compare the volumes of one encoder with the exact ones, and their cost in CPU time."""
    module = module_of(encoder, seed, runs)
    images, truth, training_images = known_images(FACTORS, seed, NUM_IMAGES, NUM_REFERENCE)
    reference = torch.cat([module(part) for part in training_images.split(500)])
    log_density = fitted(reference, "own").log_density(module(images))
    rows: list[dict[str, Any]] = []
    exact = torch.empty(0)
    for name, method in METHODS.items():
        volume, seconds = timed(method, module.target, training_images[:NUM_CALIBRATION], images)
        exact = volume if name == EXACT else exact
        row = {"label": int(encoder.label), "method": name, "seed": seed, "milliseconds": 1000.0 * seconds}
        row |= {"agreement": spearman(volume, exact), "truth": spearman(volume + log_density, truth)}
        rows.append(row | {"share": row["milliseconds"] / (rows or [row])[0]["milliseconds"]})
    return rows


def timed(method: Method, encode: Encode, calibration: Tensor, images: Tensor) -> tuple[Tensor, float]:
    """Return volumes and the CPU seconds an image takes, where 1,000 share the calibration."""
    started = time.process_time()
    rows = method.rows(encode, calibration)
    calibrated = time.process_time()
    volume = method.volume(gram_and_embedding(encode, images, rows=rows)[0])
    return volume, (calibrated - started) / SCORED + (time.process_time() - calibrated) / len(images)


def tables(rows: Sequence[Row]) -> str:
    """Print a line for each method and size."""
    columns = {"Spearman with the exact volume": "agreement", "with the truth": "truth", "ms an image": "milliseconds"}
    columns["share of the exact cost"] = "share"
    named = [{**row, "name": f"K = {row['label']}: {row['method']}"} for row in rows]
    return table(named, "", {title: {"column": column} for title, column in columns.items()}, key="name")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw agreement with the exact volume, and with the truth, against the share of the exact cost."""
    figure, (axes,) = drawing.figure(3.6, 1, 2)
    for one, column in zip(axes, ("agreement", "truth"), strict=True):
        for size in labels(rows):
            for name, method in METHODS.items():
                at = [middle(rows, key, label=size, method=name) for key in ("share", column)]
                one.plot(*at, method.marker, color=COLOURS[size], markersize=7, alpha=0.85, markeredgewidth=0)
        one.set_xscale("log")
        one.set_xlabel("CPU time over that of the exact volume")
    axes[0].set_ylabel("Spearman with the exact volume")
    axes[1].set_ylabel("own density + volume:\nSpearman with the truth")
    drawing.legend(figure, {f"K = {size}": colour for size, colour in COLOURS.items()})
    drawing.legend_of_markers(figure, {name.split(",")[0]: method.marker for name, method in METHODS.items()})
    return figure


STUDY = Study(tuple(Encoder(str(size), f"study K={size}") for size in SIZES), measure, tables, draw)
