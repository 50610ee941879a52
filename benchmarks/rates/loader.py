"""Files read in a second: by a bare loader, by ours, and by a whole first pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from jepa_train.ranking.batches import DataSettings, PartBatches, part_loader
from jepa_train.ranking.embedding import listing_order
from jepa_train.ranking.encoders import load_encoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import list_images
from rates.costs import cpu_seconds, medians
from rates.images import Files
from rates.rankings import BATCH, MODELS, SIZE, Mean, seconds_of

TURNS = 5


def loader(images: Path, folder: Path, workers: int) -> None:
    """Print what is read in a second, alone and by the first pass of an encoder that takes no time."""
    encoder = replace(load_encoder(f"random:{MODELS['cpu'][0]}", image_size=SIZE), module=Mean())
    files, bare = FilesToRank(list_images(images), encoder.prepare), Files(images, encoder.prepare)
    settings = DataSettings(batch_size=BATCH, num_workers=workers)
    order = listing_order(len(files), settings.part_size)

    def first_pass(turn: int) -> None:
        seconds_of(images, encoder, folder / f"read_{turn}", "cpu", scores="compressed_size", data=settings)

    ways: dict[str, Callable[[int], Any]] = {
        "bare loader": lambda turn: exhaust(DataLoader(bare, batch_size=BATCH, num_workers=workers)),
        "our loader": lambda turn: exhaust(part_loader(PartBatches(files, order, order.parts, BATCH), settings)),
        "first pass": first_pass,
    }
    first_pass(-1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    work: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, read in ways.items():
            start, before = time.perf_counter(), cpu_seconds()
            read(turn)
            rates[name].append(len(files) / (time.perf_counter() - start))
            work[name].append((cpu_seconds() - before) / len(files))
    seconds, bare_rate = medians(work), statistics.median(rates["bare loader"])
    for name, rate in medians(rates).items():
        print(
            f"{name}, {workers} workers: {rate:.0f} images/s, {rate / bare_rate:.2f} of the bare loader's (goal .9); "
            f"{1e3 * seconds[name]:.2f} ms of CPU an image, {seconds['bare loader'] / seconds[name]:.2f}",
            flush=True,
        )


def exhaust(batches: DataLoader[Any]) -> None:
    """Read all batches, and keep none."""
    for _ in batches:
        pass
