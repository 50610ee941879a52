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
from trainings import first_images

from jepa_monitor.density.jacobian import jacobian_gram
from jepa_monitor.density.subspace import Subspace, encoder_volume, subspace_rows
from jepa_monitor.density.volume import leading_volume, log_singular_values
from jepa_monitor.ranking import log_frobenius, spearman
from study import drawing
from study.readings import NUM_REFERENCE, Encoder, data_of, module_of
from study.rows import Row, Study, labels, middle, table
from study.scores import fitted

ENCODERS = (
    Encoder("8", "mixture r=4 K=8"),
    Encoder("64", "mixture r=4 K=8", output="tokens"),
    Encoder("192", "fashion_mnist K=192"),
    Encoder("768", "study K=768"),
)
COLOURS = dict(zip((8, 64, 192, 768), (drawing.BLUE, drawing.GREEN, drawing.ORANGE, drawing.PURPLE), strict=True))
NUM_IMAGES, NUM_CALIBRATION = 256, 16
SCORED = 1_000  # images that share the cost of a calibration
EXACT = "exact"

Encode = Callable[[Tensor], Tensor]
Volume = Callable[[Tensor], Tensor]  # of images (N, ...): (N,) nats


@dataclass(frozen=True)
class Setting:
    """Means by which a method may be calibrated.

    Attributes:
        encode: the encoder.
        images: some training images.
        reference: (M, K) embeddings of many.
        rank: r.
    """

    encode: Encode
    images: Tensor
    reference: Tensor
    rank: int

    @property
    def num_rows(self) -> int:
        """Rows m that every method but the exact one takes."""
        return subspace_rows(self.rank, self.reference.shape[1])


def exact(setting: Setting) -> Volume:
    """All K rows."""
    return partial(encoder_volume, setting.encode, rank=setting.rank)


def own_directions(setting: Setting) -> Volume:
    """Rows that are each image's own: what jepa_monitor does."""
    subspace = Subspace.fit(setting.encode, setting.images, setting.rank, reference=setting.reference)
    return partial(subspace.log_volume, setting.encode)


def mean_directions(setting: Setting) -> Volume:
    """Leading directions of the mean Gram matrix, the same for all images."""
    axes = torch.linalg.eigh(jacobian_gram(setting.encode, setting.images).mean(0)).eigenvectors
    return partial(_rank_volume, setting, axes[:, -setting.num_rows :].T)


def random_directions(setting: Setting) -> Volume:
    """Random orthonormal rows."""
    return partial(_rank_volume, setting, _random_rows(setting))


def frobenius(setting: Setting) -> Volume:
    """Log Frobenius norm, from random rows: no volume, but cheap."""
    rows = _random_rows(setting)
    return lambda images: log_frobenius(jacobian_gram(setting.encode, images, rows=rows.to(images)))


def _rank_volume(setting: Setting, rows: Tensor, images: Tensor) -> Tensor:
    gram = jacobian_gram(setting.encode, images, rows=rows.to(images))
    return leading_volume(log_singular_values(gram), setting.rank)


def _random_rows(setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(setting.reference.shape[1], setting.num_rows, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(draws).Q.T


# with their marks in the figure
METHODS: dict[str, tuple[Callable[[Setting], Volume], str]] = {
    EXACT: (exact, "D"),
    "subspace": (own_directions, "o"),
    "mean directions": (mean_directions, "v"),
    "random directions": (random_directions, "s"),
    "Frobenius norm": (frobenius, "X"),
}


@torch.no_grad()
def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Compare the volumes of one encoder with the exact ones, and their cost in CPU time."""
    module, data = module_of(encoder, seed, runs), data_of(encoder, seed)
    encode = module.target if encoder.output == "z" else module.features
    images = first_images(data.probe_dataset(), NUM_IMAGES)
    training_images = first_images(data.reference_dataset(), NUM_REFERENCE)
    reference = torch.cat([encode(part) for part in training_images.split(500)])
    model = fitted(reference)["own"]
    setting = Setting(encode, training_images[:NUM_CALIBRATION], reference, model.rank)
    truth = getattr(data.probe_dataset(), "log_densities", {}).get("factors")
    log_density = model.log_density(encode(images))
    rows: list[dict[str, Any]] = []
    volumes: dict[str, Tensor] = {}
    for name, (method, _) in METHODS.items():
        volumes[name], milliseconds = timed(method, setting, images)
        row = {"label": int(encoder.label), "method": name, "seed": seed, "r": model.rank, "ms": milliseconds}
        row["agreement"] = spearman(volumes[name], volumes[EXACT])
        row |= {"truth": spearman(volumes[name] + log_density, truth(images))} if truth else {}
        rows.append(row | {"share": milliseconds / (rows or [row])[0]["ms"]})
    return rows


def timed(method: Callable[[Setting], Volume], setting: Setting, images: Tensor) -> tuple[Tensor, float]:
    """Return volumes and the CPU time of an image in milliseconds, where 1,000 share the calibration."""
    started = time.process_time()
    volume = method(setting)
    calibrated = time.process_time()
    found = volume(images)
    seconds = (calibrated - started) / SCORED + (time.process_time() - calibrated) / len(images)
    return found, 1000.0 * seconds


def tables(rows: Sequence[Row]) -> str:
    """Print a line for each method and size."""
    columns = {"r": "r", "with the exact volume": "agreement", "own density + volume, with the truth": "truth"}
    columns |= {"ms an image": "ms", "share of the exact cost": "share"}
    named = [{**row, "name": f"K = {row['label']}: {row['method']}"} for row in rows]
    return table(named, "rank correlation", {title: {"column": column} for title, column in columns.items()}, "name")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw agreement with the exact volume, and with the truth, against the share of the exact cost."""
    figure, (axes,) = drawing.figure(3.6, 1, 2, sharex=True)
    for one, column in zip(axes, ("agreement", "truth"), strict=True):
        for size in labels(rows):
            for name, (_, marker) in METHODS.items():
                at = [middle(rows, key, label=size, method=name) for key in ("share", column)]
                one.plot(*at, marker, color=COLOURS[size], markersize=7, alpha=0.85, markeredgewidth=0)
        drawing.log_scale(one)
        one.set_xlabel("CPU time over that of the exact volume")
    axes[0].set_ylabel("rank correlation with the exact volume")
    axes[1].set_ylabel("own density + volume:\nrank correlation with the truth")
    drawing.legend(figure, {f"K = {size}": colour for size, colour in COLOURS.items() if size in labels(rows)})
    drawing.legend_of_markers(figure, {name: marker for name, (_, marker) in METHODS.items()})
    return figure


STUDY = Study(ENCODERS, measure, tables, draw)
