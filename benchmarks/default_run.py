"""Trains the default config on several seeds, prints the spread of its final numbers, and asserts the goals.

    python benchmarks/default_run.py [--seeds 3] [--json FILE] [--runs FOLDER]

Each run is ``python train.py fit --seed_everything S --model.seed S`` in a process of its own; the wall seconds are
those of the whole process, imports and measurements included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
TAGS = (
    "density/spearman",
    "density/spearman_jepa_score",
    "density/spearman_gaussian",
    "gaussianity/sliced_ep_ratio",
    "monitor/overhead_percent",
)


def run(seed: int, folder: Path) -> dict[str, float]:
    """Final and first values of one run, and its wall seconds."""
    command = [sys.executable, str(ROOT / "train.py"), "fit", f"--seed_everything={seed}", f"--model.seed={seed}"]
    command += [f"--trainer.logger.save_dir={folder}", "--trainer.enable_progress_bar=false"]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    values = {"wall seconds": time.monotonic() - started}
    (log,) = folder.glob("mixture/version_*")
    events = EventAccumulator(str(log), size_guidance={"scalars": 0}).Reload()
    values |= {tag: events.Scalars(tag)[-1].value for tag in TAGS}
    values["density/spearman, untrained"] = events.Scalars("density/spearman")[0].value
    return values


def main() -> None:
    """Print the table; fail if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--runs", type=Path, help="keep the runs here; default: a temporary folder")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as temporary:
            runs.append(run(seed, (arguments.runs or Path(temporary)) / f"seed_{seed}"))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in runs[-1].items()), flush=True)
    print(f"\n{arguments.seeds} seeds, {os.cpu_count()} cores, torch {torch.__version__}, {platform.machine()}")
    print(f"{'':32}{'min':>10}{'median':>10}{'max':>10}")
    table = {name: sorted(values[name] for values in runs) for name in runs[0]}
    for name, values in table.items():
        print(f"{name:32}{values[0]:10.3f}{statistics.median(values):10.3f}{values[-1]:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=1))
    goals = {
        "density/spearman is 0.95 or more": table["density/spearman"][0] >= 0.95,
        "one fitted Gaussian stays at or below 0.75": table["density/spearman_gaussian"][-1] <= 0.75,
        "the untrained encoder stays at or below 0.75": table["density/spearman, untrained"][-1] <= 0.75,
        "the monitor takes 5 % of the training time or less": table["monitor/overhead_percent"][-1] <= 5.0,
        "a run takes 3 minutes or less": table["wall seconds"][-1] <= 180.0,
    }
    for goal, reached in goals.items():
        print(f"{'reached' if reached else 'MISSED'}: {goal}")
    sys.exit(not all(goals.values()))


if __name__ == "__main__":
    main()
