"""The second pass of a ranking beside Listing 1 of the paper, on a GPU, with the memory of each."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from score import listing_1

from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.encoders import load_encoder
from rates.images import Files, photographs
from rates.rankings import IMAGENET, MODELS, SIZE, seconds_of

LISTED = 16  # images by Listing 1


def volumes_on_gpu(folder: Path, count: int, workers: int) -> None:
    """Print the second pass beside Listing 1, with the peak of memory of each."""
    images = photographs(folder / "measured", count, 256)
    for model in MODELS["cuda"]:
        settings = {"image_size": SIZE, "estimator": "subspace", "data": DataSettings(num_workers=workers)}
        torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(images, f"random:{model}", folder / f"volumes_{model}", "cuda", **settings)
        peak, by = torch.cuda.max_memory_allocated(), seconds.pop("volumes_by")
        listed, peak_listed = by_listing_1(images, model)
        each = seconds["volumes"] / count
        ours_takes, listing_takes = (IMAGENET * one / 3600 for one in (each, listed))
        print(
            f"volumes {model} r={by['rank']} rows={by['rows']}: {1 / each:.1f} images/s, Listing 1 {1 / listed:.2f}, "
            f"ratio {listed / each:.1f}; {ours_takes:.2f} and {listing_takes:.2f} h for {IMAGENET} images; "
            f"peak {peak >> 20} and {peak_listed >> 20} MiB, batches of 64 and {LISTED}; all stages: "
            + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()),
            flush=True,
        )


def by_listing_1(images: Path, model: str) -> tuple[float, int]:
    """Seconds an image, and the peak of memory in bytes."""
    encoder = load_encoder(f"random:{model}", image_size=SIZE)
    module = encoder.module.cuda()
    files = Files(images, encoder.prepare)
    x = torch.stack([files[index] for index in range(LISTED)]).cuda()
    listing_1(module, x[:1])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    listing_1(module, x)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / LISTED, torch.cuda.max_memory_allocated()
