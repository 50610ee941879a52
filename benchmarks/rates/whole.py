"""Whole rankings: of the test images of Fashion-MNIST, page and all, and of very many small images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jepa_train.data import FashionMNISTDataModule
from jepa_train.ranking.listing import list_images
from rates.costs import apart, cpu_seconds
from rates.images import garments, small_pictures
from rates.rankings import Small, encoder_of, seconds_of


def fashion(images: Path, checkpoint: str, output: Path) -> None:
    """Print the seconds of a whole ranking, all columns and the page included."""
    garments(images, FashionMNISTDataModule())
    start, before = time.perf_counter(), cpu_seconds()
    seconds = seconds_of(images, checkpoint, output, "cpu", page=True)
    whole, work, by = time.perf_counter() - start, cpu_seconds() - before, seconds.pop("volumes_by")
    print(
        f"fashion: {len(list_images(images))} images in {whole:.0f} s (goal 180), {work:.0f} s of CPU; "
        f"{stages(seconds)}; {by['rows']} rows of volumes",
        flush=True,
    )


def many(folder: Path, count: int) -> None:
    """Print seconds and the peak of memory for many small images."""
    images = small_pictures(folder / "many", count)
    seconds, peak = apart(rank_small, images, folder / "ranked_many")
    print(f"many: {count} images, {stages(seconds)}; peak {peak:.0f} MiB (goal 3,072)", flush=True)


def rank_small(images: Path, output: Path) -> dict[str, float]:
    """Seconds of each stage by the small encoder."""
    seconds: dict[str, Any] = seconds_of(images, encoder_of(Small(), 3, 8, "small"), output, "cpu")
    del seconds["volumes_by"]
    return seconds


def stages(seconds: dict[str, float]) -> str:
    """Name and seconds of each stage."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
