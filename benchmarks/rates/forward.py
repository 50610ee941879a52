"""The first pass of a ranking beside a bare loop of timm over the same files."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.encoders import load_encoder
from jepa_train.ranking.listing import list_images
from rates.costs import medians
from rates.images import Files
from rates.rankings import BATCH, IMAGENET, MODELS, SIZE, seconds_of

TURNS = 3


def forward(images: Path, folder: Path, device: str, workers: int) -> None:
    """Print the first pass beside the bare loop, in turn."""
    for model in MODELS[device]:
        rates: dict[str, list[float]] = {"rank": [], "bare loop": []}
        for turn in range(TURNS):
            rates["bare loop"].append(bare_loop(images, model, device, workers))
            rates["rank"].append(first_pass(images, model, folder / f"{model}_{turn}", device, workers))
        found = medians(rates)
        ours, bare = found["rank"], found["bare loop"]
        hours = IMAGENET / ours / 3600
        print(
            f"forward {model}: {ours:.1f} images/s, bare loop {bare:.1f}, ratio {ours / bare:.2f} (goal .9), "
            f"{hours:.2f} h for {IMAGENET} images",
            flush=True,
        )


def first_pass(images: Path, model: str, output: Path, device: str, workers: int) -> float:
    """Images a second of the first pass."""
    data = DataSettings(num_workers=workers)
    settings = {"scores": "compressed_size", "data": data, "image_size": SIZE}
    seconds = seconds_of(images, f"random:{model}", output, device, **settings)
    return len(list_images(images)) / float(seconds["embeddings"])


def bare_loop(images: Path, model: str, device: str, workers: int) -> float:
    """Images a second of timm's model over the files, prepared as timm says, and nothing else."""
    encoder = load_encoder(f"random:{model}", image_size=SIZE)
    files = Files(images, encoder.prepare)
    module = encoder.module.to(device)
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(files, batch_size=BATCH, num_workers=workers):
            module(batch.to(device)).cpu()
    return len(files) / (time.perf_counter() - start)
