"""Trains variants of a config side by side, one after the other, and prints what each ends with.

    python benchmarks/recipes.py mixture [--epochs 4] [--only NAME ...]
    python benchmarks/recipes.py fashion_mnist [--epochs 20] [--only NAME ...]
    python benchmarks/recipes.py fashion_mnist_tokens [--epochs 6] [--only NAME ...]
    python benchmarks/recipes.py digits [--epochs 100] [--only NAME ...]

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
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
KIBIBYTES = 2**20  # in a gibibyte
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
        "width 256": "--model.encoder_overrides '{embed_dim: 256, depth: 0, num_heads: 4, pos_embed: none, "
        "final_norm: false}'",
        "width 256, channels doubled": "--model.stem_channels null --model.encoder_overrides "
        "'{embed_dim: 256, depth: 0, num_heads: 4, pos_embed: none, final_norm: false}'",
        "width 1024": "--model.encoder_overrides '{embed_dim: 1024, depth: 0, num_heads: 4, pos_embed: none, "
        "final_norm: false}'",
        "channels 16 and 32": "--model.stem_channels [16,32]",
        "a block of attention": "--model.encoder_overrides '{embed_dim: 256, depth: 1, num_heads: 4}'",
        "linear stem, two blocks": "--model.stem linear --model.stem_channels null "
        "--model.encoder_overrides '{embed_dim: 128, depth: 2, num_heads: 4}'",
        "weak intensities": "--model.brightness 0.4 --model.contrast 0.4",
        "crops from 0.15": "--model.crop_scale 0.15",
        "four views": "--model.global_views 4 --data.batch_size 64",
        "crops from 0.5": "--model.crop_scale 0.5",
        "noise": "--model.noise 0.4",
        "positions and a last norm": "--model.encoder_overrides '{embed_dim: 512, depth: 0, num_heads: 4}'",
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
}
EPOCHS = {"mixture": 4, "fashion_mnist": 20, "fashion_mnist_tokens": 6, "digits": 100}
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
    "monitor/overhead_percent",
)
TAGS = {
    "mixture": ("density/spearman", "density/spearman_jepa_score", "gaussianity/sliced_ep_ratio"),
    "fashion_mnist": OF_FASHION,
    "fashion_mnist_tokens": OF_FASHION,
    "digits": (*OF_KNN, "gaussianity/sliced_ep_ratio"),
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


def run(config: str, name: str, epochs: int, runs: Path) -> Run:
    """Train a variant, or read what it ended with before."""
    folder = runs / config / "".join(letter if letter.isalnum() else "_" for letter in name) / f"{epochs}_epochs"
    kept = folder / "run.json"
    if not kept.is_file():
        command = [sys.executable, str(ROOT / "train.py"), "fit", "-c", str(ROOT / "configs" / f"{config}.yaml")]
        command += [f"--trainer.logger.save_dir={folder}", "--trainer.logger.name=log", "--trainer.logger.version=0"]
        command += [f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false"]
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
        started = time.monotonic()
        process = subprocess.Popen(
            [*command, *shlex.split(VARIANTS[config][name])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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


def main() -> None:
    """Print a row as soon as its run has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", nargs="*", help="names of variants; default: all")
    parser.add_argument("--runs", type=Path, help="keep runs here, and go on where the last call was stopped")
    arguments = parser.parse_args()
    epochs = arguments.epochs or EPOCHS[arguments.config]
    variants = VARIANTS[arguments.config]
    tags = TAGS[arguments.config]
    print(f"{epochs} epochs, {os.cpu_count()} cores, torch {torch.__version__}\n", flush=True)
    print(f"| variant | {' | '.join(f'`{tag}`' for tag in tags)} | minutes | CPU minutes | GiB | options |")
    print("|---" * (len(tags) + 5) + "|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only or variants:
            ended = run(arguments.config, name, epochs, arguments.runs or Path(temporary))
            cells = " | ".join(f"{ended.values[tag]:.3f}" for tag in tags)
            cost = f"{ended.minutes:.1f} | {ended.cpu_minutes:.1f} | {ended.gibibytes:.1f}"
            print(f"| {name} | {cells} | {cost} | `{variants[name]}` |", flush=True)


if __name__ == "__main__":
    main()
