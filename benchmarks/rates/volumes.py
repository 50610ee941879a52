"""The second pass of a ranking beside Listing 1 of the paper, by time of the CPU and memory.

Time of the CPU is what other work on the machine does not change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from score import listing_1, trained_model
from torch import Tensor, nn

from jepa_monitor import jacobian_gram
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import list_images
from jepa_train.ranking.references import CALIBRATION
from rates.costs import Clock, Peak, apart
from rates.rankings import BATCH, encoder_of, seconds_of

STEPS = 100  # of training


@dataclass(frozen=True)
class Cost:
    """Cost of volumes: seconds of the CPU an image, and MiB of the largest batch above what was held before."""

    seconds: float
    mib: float


def volumes(folder: Path, sizes: Sequence[int], count: int) -> None:
    """Print the second pass beside Listing 1, each in a process of its own, for encoders of these sizes."""
    for size in sizes:
        images, weights = known_images(folder, size, count)
        (ours, by), _ = apart(by_rank, images, weights, size, folder / f"ranked_{size}")
        theirs, _ = apart(by_listing_1, images, weights)
        once, _ = apart(calibration, images, weights)
        whole = ours.seconds + once / count
        print(
            f"volumes K={size} r={by['rank']} rows={by['rows']}, ms of CPU an image: {1e3 * ours.seconds:.2f}, "
            f"Listing 1 {1e3 * theirs.seconds:.1f}, ratio {theirs.seconds / ours.seconds:.1f} (goal 20; by rows alone "
            f"{size / by['rows']:.1f}); with the calibration of {once:.1f} s for {count} images "
            f"{theirs.seconds / whole:.1f}; batches of {BATCH} take {ours.mib:.0f} MiB, by Listing 1 {theirs.mib:.0f}, "
            f"ratio {ours.mib / theirs.mib:.2f} (goal .2)",
            flush=True,
        )


def known_images(folder: Path, size: int, count: int) -> tuple[Path, Path]:
    """Write images of known density, and an encoder that was trained for some steps on others of them."""
    module, probe, reference = trained_model(size, STEPS)
    images, weights = folder / f"known_{size}", folder / f"{size}.pt"
    images.mkdir()
    torch.save(module.target, weights)
    for number, image in enumerate(torch.cat([probe, reference])[:count]):
        pixels = ((image[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(images / f"{number:05d}.png")
    return images, weights


def by_rank(images: Path, weights: Path, size: int, output: Path) -> tuple[Cost, dict[str, Any]]:
    """Cost of the second pass, and how volumes were estimated."""
    clock, peak, settings = Clock(), Peak(), DataSettings(num_workers=0)
    encoder = _encoder(weights, f"K={size}")
    found = seconds_of(images, encoder, output, "cpu", [clock, peak], estimator="subspace", data=settings)
    return Cost(clock.seconds / len(list_images(images)), peak.mib), found["volumes_by"]


def by_listing_1(images: Path, weights: Path) -> Cost:
    """Cost of Listing 1, on as many images at a time as a batch of the ranking has."""
    module, x = _batch(images, weights)
    with Peak() as peak:
        start = time.process_time()
        listing_1(module, x)
        seconds = time.process_time() - start
    return Cost(seconds / len(x), peak.mib)


def calibration(images: Path, weights: Path) -> float:
    """Seconds of the CPU that exact Jacobians of the calibration take, once a ranking."""
    module, x = _batch(images, weights)
    start = time.process_time()
    jacobian_gram(module, x[:CALIBRATION])
    return time.process_time() - start


def _batch(images: Path, weights: Path) -> tuple[nn.Module, Tensor]:
    """The encoder, which has run once, and a batch of its inputs."""
    encoder = _encoder(weights, "")
    files = FilesToRank(list_images(images), encoder.prepare)
    x = files.inputs(torch.stack([files[index]["image"] for index in range(min(BATCH, len(files)))]))
    with torch.no_grad():
        encoder.module(x)
    return encoder.module, x


def _encoder(weights: Path, identity: str) -> ImageEncoder:
    return encoder_of(torch.load(weights, weights_only=False), 1, 16, identity)
