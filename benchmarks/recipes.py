"""Trains variants of a config side by side, one after the other, and prints what each ends with.

    python benchmarks/recipes.py mixture [--epochs 4] [--only NAME ...]
    python benchmarks/recipes.py fashion_mnist [--epochs 6] [--only NAME ...]

Each variant is the config with a few options changed, so each row is also a command of its own:
``python train.py fit -c configs/CONFIG.yaml OPTIONS``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    "mixture": {
        "the config": "",
        "contrast 1": "--data.contrast 1 --data.noise 1 --model.noise 1",
        "contrast 0.1": "--data.contrast 0.1 --data.noise 0.1 --model.noise 0.1",
        "batches of 128": "--data.batch_size 128",
        "eight factors, K = 16": "--data.latent_size 8 --model.embedding_size 16",
        "eight factors, K = 16, contrast 0.1, batches of 128": "--data.latent_size 8 --model.embedding_size 16 "
        "--data.contrast 0.1 --data.noise 0.1 --model.noise 0.1 --data.batch_size 128",
        "no view noise": "--model.noise 0",
        "K = 8": "--model.embedding_size 8",
        "no batch norm": "--model.projector_batch_norm false",
        "anti-collapse weight 0.05": "--model.anticollapse_weight 0.05",
        "no anti-collapse": "--model.anticollapse none",
        "VICReg": "--model.anticollapse vicreg --model.anticollapse_weight 0.04",
    },
    "fashion_mnist": {
        "the config": "",
        "half the image hidden": "--model.num_targets 2 --model.target_scale [0.15,0.25]",
        "contrast 1": "--data.contrast 1",
        "crops from 0.6": "--model.crop_scale 0.6",
        "patch 4": "--model.patch_size 4",
        "no batch norm": "--model.projector_batch_norm false",
    },
}
TAGS = {
    "mixture": ("density/spearman", "density/spearman_jepa_score", "gaussianity/sliced_ep_ratio"),
    "fashion_mnist": (
        "knn/accuracy",
        "knn/accuracy_unwhitened",
        "knn/accuracy_embedding",
        "knn/accuracy_pixels",
        "knn/accuracy_pixels_whitened",
        "linear_probe/accuracy",
        "linear_probe/accuracy_pixels",
        "features/lidar_ratio",
        "features/std_l2_normalised_ratio",
        "gaussianity/sliced_ep_ratio",
        "density/ood_auroc/mnist",
        "density/ood_auroc_jepa_score/mnist",
        "density/ood_auroc_typicality/mnist",
        "density/ood_auroc/corrupted",
    ),
}


def run(config: str, options: str, epochs: int, folder: Path) -> tuple[dict[str, float], float]:
    """Last values of one run, and its wall seconds."""
    command = [sys.executable, str(ROOT / "train.py"), "fit", "-c", str(ROOT / "configs" / f"{config}.yaml")]
    command += [f"--trainer.logger.save_dir={folder}", f"--trainer.max_epochs={epochs}"]
    command += ["--trainer.enable_progress_bar=false", *shlex.split(options)]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    (log,) = folder.glob(f"{config}/version_*")
    events = EventAccumulator(str(log), size_guidance={"scalars": 0}).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in TAGS[config]}, seconds


def main() -> None:
    """Print a row as soon as its run has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="*", help="names of variants; default: all")
    arguments = parser.parse_args()
    epochs = arguments.epochs or {"mixture": 4, "fashion_mnist": 6}[arguments.config]
    variants = VARIANTS[arguments.config]
    tags = TAGS[arguments.config]
    print(f"{epochs} epochs, {os.cpu_count()} cores, torch {torch.__version__}\n", flush=True)
    print(f"| variant | {' | '.join(f'`{tag}`' for tag in tags)} | seconds | options |")
    print("|---" * (len(tags) + 3) + "|", flush=True)
    for name in arguments.only or variants:
        with tempfile.TemporaryDirectory() as folder:
            values, seconds = run(arguments.config, variants[name], epochs, Path(folder))
        cells = " | ".join(f"{values[tag]:.3f}" for tag in tags)
        print(f"| {name} | {cells} | {seconds:.0f} | `{variants[name]}` |", flush=True)


if __name__ == "__main__":
    main()
