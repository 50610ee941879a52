"""Trains variants of a config side by side, one after the other, and prints what each ends with.

    python benchmarks/recipes.py mixture [--epochs 4] [--only NAME ...]
    python benchmarks/recipes.py fashion_mnist [--epochs 20] [--only NAME ...]
    python benchmarks/recipes.py fashion_mnist_tokens [--epochs 6] [--only NAME ...]
    python benchmarks/recipes.py digits [--epochs 100] [--only NAME ...]
    python benchmarks/recipes.py image_folder [--epochs 40] [--only NAME ...] [--root FOLDER]

The folder of images is one of pieces of photographs (``benchmarks/photographs.py``), or your own.

Each variant is the config with a few options changed, so each row is also a command of its own:
``python train.py fit -c configs/CONFIG.yaml OPTIONS``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import photographs
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
KIBIBYTES = 2**20  # in a gibibyte
# one step that is no step
UNTRAINED = (
    "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.log_every_n_steps 1 --model.learning_rate 1e-12 "
    "--model.learning_rate_start 0 --model.learning_rate_end 0"
)
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
        "seed 1": "--seed_everything 1 --model.seed 1",
        "seed 2": "--seed_everything 2 --model.seed 2",
        "float32": "--trainer.precision 32-true",
        "width 512, channels 32 and 64": "--model.stem_channels [32,64] --model.encoder_overrides "
        "'{embed_dim: 512, depth: 0, num_heads: 4, pos_embed: none, final_norm: false}'",
        "width 512, channels 32 and 64, seed 1": "--seed_everything 1 --model.seed 1 --model.stem_channels [32,64] "
        "--model.encoder_overrides '{embed_dim: 512, depth: 0, num_heads: 4, pos_embed: none, final_norm: false}'",
        "width 512, channels 16 and 32": "--model.stem_channels [16,32] --model.encoder_overrides "
        "'{embed_dim: 512, depth: 0, num_heads: 4, pos_embed: none, final_norm: false}'",
        "width 256, channels 32 and 64": "--model.stem_channels [32,64]",
        "a block of attention": "--model.encoder_overrides '{embed_dim: 256, depth: 1, num_heads: 4}'",
        "linear stem, two blocks": "--model.stem linear "
        "--model.encoder_overrides '{embed_dim: 128, depth: 2, num_heads: 4}'",
        "weak intensities": "--model.brightness 0.4 --model.contrast 0.4",
        "crops from 0.15": "--model.crop_scale 0.15",
        "four views": "--model.global_views 4 --data.batch_size 64",
        "crops from 0.5": "--model.crop_scale 0.5",
        "noise": "--model.noise 0.4",
        "positions and a last norm": "--model.encoder_overrides '{embed_dim: 256, depth: 0, num_heads: 4}'",
        "K = 16": "--model.embedding_size 16",
        "K = 128": "--model.embedding_size 128",
        "anti-collapse weight 0.02": "--model.anticollapse_weight 0.02",
        "twice the rate": "--model.learning_rate 4.0e-3",
        "batches of 256": "--data.batch_size 256 --model.learning_rate 3.0e-3",
        "no average": "--model.ema_start 0 --model.ema_end 0",
    },
    "fashion_mnist_tokens": {
        "the config": "",
        "half the image hidden": "--model.num_targets 2 --model.target_scale [0.15,0.25]",
        "contrast 1": "--data.contrast 1",
        "crops from 0.6": "--model.crop_scale 0.6",
        "patch 4": "--model.patch_size 4",
        "no batch norm": "--model.projector_batch_norm false",
    },
    "digits": {
        "the config": "",
        "seed 1": "--seed_everything 1 --model.seed 1",
        "seed 2": "--seed_everything 2 --model.seed 2",
        "patch 2": "--model.patch_size 2",
        "weaker views": "--model.crop_scale 1 --model.noise 0.1",
    },
    "image_folder": {
        "the config": "",
        "seed 1": "--seed_everything 1 --model.seed 1",
        "seed 2": "--seed_everything 2 --model.seed 2",
        "random weights": UNTRAINED,
        "random weights, seed 1": f"{UNTRAINED} --seed_everything 1 --model.seed 1",
        "random weights, seed 2": f"{UNTRAINED} --seed_everything 2 --model.seed 2",
        "colors as they are": "--model.saturation 0 --model.hue 0",
        "a block of attention": "--model.encoder_overrides '{embed_dim: 256, depth: 1, num_heads: 4}'",
        "channels that double": "--model.stem_channels null",
        "patch 8": "--model.patch_size 8 --model.stem_channels [16,64]",
        "crops from 0.2": "--model.crop_scale 0.2",
        "batches of 128": "--data.batch_size 128",
        # the config as it was, for as long as the others take
        "hidden tokens, ViT-Ti/8": "--model.encoder_overrides null --model.stem linear --model.stem_channels null "
        "--model.patch_size 8 "
        "--model.token_weight 1 --model.embedding_weight 1 --model.centre_weight 0 --model.anticollapse_weight 0.2 "
        "--model.crop_scale 0.5 --model.crop_aspect 1 --model.brightness 0 --model.contrast 0 --model.saturation 0 "
        "--model.hue 0 --model.learning_rate_start 2e-4 --model.learning_rate 5e-4 --model.ema_start 0.996 "
        "--model.ema_end 1 --model.weight_decay 0.04 --model.weight_decay_end 0.4 --trainer.max_epochs 2",
    },
}
EPOCHS = {"mixture": 4, "fashion_mnist": 20, "fashion_mnist_tokens": 6, "digits": 100, "image_folder": 40}
OF_KNN = ("knn/accuracy_unwhitened", "knn/accuracy", "knn/accuracy_pixels")
OF_FASHION = (
    *OF_KNN,
    "linear_probe/accuracy",
    "linear_probe/accuracy_pixels",
    "features/lidar_ratio",
    "gaussianity/sliced_ep_ratio",
    "density/ood_auroc/mnist",
    "density/ood_auroc/corrupted",
    "density/ood_auroc_jepa_score/mnist",
    "density/ood_auroc_embedding/mnist",
    "monitor/overhead_percent",
)
TAGS = {
    "mixture": ("density/spearman", "density/spearman_jepa_score", "gaussianity/sliced_ep_ratio"),
    "fashion_mnist": OF_FASHION,
    "fashion_mnist_tokens": OF_FASHION,
    "digits": (*OF_KNN, "gaussianity/sliced_ep_ratio"),
    "image_folder": (
        *OF_KNN,
        "knn/accuracy_pixels_whitened",
        "linear_probe/accuracy",
        "linear_probe/accuracy_pixels",
        "gaussianity/sliced_ep_ratio",
        "monitor/overhead_percent",
    ),
}


@dataclass(frozen=True)
class Run:
    """Last values of a run, and its cost.

    Attributes:
        values: last value of each tag.
        minutes: of the clock.
        cpu_minutes: of all its threads.
        gibibytes: most memory that it held.
    """

    values: dict[str, float]
    minutes: float
    cpu_minutes: float
    gibibytes: float


def run(config: str, name: str, epochs: int, runs: Path, options: Sequence[str] = ()) -> Run:
    """Train a variant, or read what it ended with before.

    Args:
        config: name of a file of ``configs/``.
        name: name of the variant.
        epochs: epochs of the variants that do not say themselves.
        runs: folder of all runs.
        options: further options, before those of the variant.
    """
    folder = runs / config / "".join(letter if letter.isalnum() else "_" for letter in name) / f"{epochs}_epochs"
    kept = folder / "run.json"
    if not kept.is_file():
        command = [sys.executable, str(ROOT / "train.py"), "fit", "-c", str(ROOT / "configs" / f"{config}.yaml")]
        command += [f"--trainer.logger.save_dir={folder}", "--trainer.logger.name=log", "--trainer.logger.version=0"]
        command += [f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false"]
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
        started = time.monotonic()
        process = subprocess.Popen(
            [*command, *options, *shlex.split(VARIANTS[config][name])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{name} ended with status {os.waitstatus_to_exitcode(status)}: run its command alone.")
        minutes = (time.monotonic() - started) / 60.0
        events = EventAccumulator(str(folder / "log" / "version_0"), size_guidance={"scalars": 0}).Reload()
        values = {tag: events.Scalars(tag)[-1].value for tag in TAGS[config]}
        cpu_minutes = (usage.ru_utime + usage.ru_stime) / 60.0
        made = Run(values, minutes, cpu_minutes, usage.ru_maxrss / KIBIBYTES)
        kept.write_text(json.dumps(asdict(made), indent=1))
    return Run(**json.loads(kept.read_text()))


def data_options(config: str, root: Path | None, runs: Path) -> list[str]:
    """Say where the images of a folder are; without one, pieces of photographs are cut beside the runs, once."""
    if config != "image_folder":
        return []
    if root is None:
        root = runs / "photographs"
        if not root.is_dir():
            unfinished = runs / "photographs_unfinished"
            photographs.write(unfinished, seed=0)
            unfinished.rename(root)
    return [f"--data.root={root}"]


def main() -> None:
    """Print a row as soon as its run has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="*", help="names of variants; default: all")
    parser.add_argument("--runs", type=Path, help="keep runs here, and go on where the last call was stopped")
    parser.add_argument("--root", type=Path, help="folder of images for image_folder; default: pieces of photographs")
    arguments = parser.parse_args()
    epochs = arguments.epochs or EPOCHS[arguments.config]
    variants = VARIANTS[arguments.config]
    tags = TAGS[arguments.config]
    print(f"{epochs} epochs, {os.cpu_count()} cores, torch {torch.__version__}\n", flush=True)
    print(f"| variant | {' | '.join(f'`{tag}`' for tag in tags)} | minutes | CPU minutes | GiB | options |")
    print("|---" * (len(tags) + 5) + "|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or Path(temporary)
        options = data_options(arguments.config, arguments.root, runs)
        for name in arguments.only or variants:
            ended = run(arguments.config, name, epochs, runs, options)
            cells = " | ".join(f"{ended.values[tag]:.3f}" for tag in tags)
            cost = f"{ended.minutes:.1f} | {ended.cpu_minutes:.1f} | {ended.gibibytes:.1f}"
            print(f"| {name} | {cells} | {cost} | `{variants[name]}` |", flush=True)


if __name__ == "__main__":
    main()
