"""Images per second of each process: several processes (DDP) against one, with equal batches per process.

    python benchmarks/scaling.py [--processes 2] [--repeats 3] [--steps 8] [--batch 32] [--json FILE]

Every run is a Trainer in processes of its own with one thread each, in turn: one process, several that train apart at
the same time, several that train one model together. What processes lose apart they lose to each other's memory traffic
and clock; what they lose together, and not apart, is the cost of working together. The objective is the default one, so
that the collectives of SIGReg and batch norm are in it. With as many GPUs as processes they are used. The machine needs
a free core for each process: under load a loss says nothing. The exit status says whether the goal was reached.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from jepa_train.module import JEPA
from jepa_train.parallel import disconnect

WARM_UP = 2
GOAL = 0.95


class StepSeconds(pl.Callback):
    """Seconds from the end of one step to the end of the next, data included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Weights and EMA have moved; a GPU is waited for."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def median(self) -> float:
        """Median seconds of a step without the warm-up."""
        ends = self.ends[WARM_UP:]
        return statistics.median(after - before for before, after in itertools.pairwise(ends))


def train(processes: int, steps: int, batch: int, file: Path) -> None:
    """Fit and let the first process write the median seconds of a step."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    seconds = StepSeconds()
    trainer = pl.Trainer(
        max_steps=WARM_UP + 1 + steps,
        accelerator="gpu" if torch.cuda.device_count() >= processes else "cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        callbacks=[seconds],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    images = [{"image": image} for image in torch.randn(batch, 3, 96, 96)]
    repeated = images * (processes * trainer.max_steps)
    module = JEPA(image_size=96, predictor_width=96, predictor_depth=6, predictor_heads=3)
    trainer.fit(module, DataLoader(repeated, batch_size=batch))
    if trainer.is_global_zero:
        file.write_text(json.dumps(seconds.median))
    disconnect()


def run(apart: int, processes: int, arguments: argparse.Namespace) -> float:
    """Median seconds of a step, the longest of so many trainings at the same time of so many processes each."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.json" for number in range(apart)]
        trainings = []
        for file in files:
            command = [sys.executable, __file__, "--train", str(file), "--processes", str(processes)]
            command += ["--steps", str(arguments.steps), "--batch", str(arguments.batch)]
            trainings.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}))
        ended = [training.wait() for training in trainings]
        if any(ended):
            raise SystemExit("a training failed: see above.")
        return max(float(json.loads(file.read_text())) for file in files)


def main() -> None:
    """Print the table; fail if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each run")
    parser.add_argument("--batch", type=int, default=32, help="of each process")
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.processes, arguments.steps, arguments.batch, arguments.train)
        return
    cases = {"1": (1, 1), f"{arguments.processes} apart": (arguments.processes, 1)}
    cases |= {f"{arguments.processes} as one": (1, arguments.processes)}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(arguments.repeats):
        for name, (apart, processes) in cases.items():
            seconds[name].append(run(apart, processes, arguments))
    print(
        f"ViT-Ti/16 96 px, B={arguments.batch} per process, {arguments.repeats} runs of {arguments.steps} steps in turn"
    )
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| processes | step, ms | (range) | images/s of each | images/s of all |\n|--:|--:|--:|--:|--:|")
    for name, values in seconds.items():
        each, count = arguments.batch / statistics.median(values), cases[name][0] * cases[name][1]
        spread = f"{1e3 * min(values):.0f}-{1e3 * max(values):.0f}"
        print(f"| {name} | {1e3 * statistics.median(values):.0f} | {spread} | {each:.1f} | {count * each:.1f} |")
    alone, apart, joined = seconds.values()
    kept = statistics.median(one / several for one, several in zip(alone, joined, strict=True))
    kept_of_apart = statistics.median(one / several for one, several in zip(apart, joined, strict=True))
    print(f"\nas one, each process keeps {kept_of_apart:.2f} of its images per second apart")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"seconds": seconds, "kept": kept, "kept_of_apart": kept_of_apart}, indent=1)
        )
    reached = kept >= GOAL
    print(
        f"{'reached' if reached else 'MISSED'}: each process keeps {GOAL:g} of its images per second alone ({kept:.2f})"
    )
    sys.exit(not reached)


if __name__ == "__main__":
    main()
