"""Trains the default config with and without the monitor and prints what the monitor costs.

    python benchmarks/overhead.py [--repeats 3] [--config FILE] [--json FILE] [--options --trainer.max_epochs=2 ...]

Runs are interleaved, each in a process of its own. Two figures: the seconds that the monitor counted over those of the
rest of the fit, and the fit's seconds with the monitor over those without it. They should agree within the runs' own
spread. Asserts that the first, the one with little spread, is at most the budget.
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
from typing import Any

import lightning.pytorch as pl
import torch
import yaml

from jepa_monitor import JEPAScoreMonitor

ROOT = Path(__file__).resolve().parents[1]


class FitSeconds(pl.Callback):
    """Writes the seconds of a fit, and what a monitor in it counted."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock before anything is measured."""
        self.started = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock after the last picture."""
        values: dict[str, Any] = {"seconds": time.monotonic() - self.started}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's own hint lacks it
            if isinstance(callback, JEPAScoreMonitor):
                history = callback.history.values
                values["measuring"] = callback.seconds_spent
                values["samples"] = history["monitor/samples"]
                values["each"] = history["monitor/seconds"]
                values["logged %"] = history["monitor/overhead_percent"][-1]
        self.file.write_text(json.dumps(values))


def run(config: dict[str, Any], options: list[str], *, monitored: bool, folder: Path) -> dict[str, Any]:
    """Seconds of one fit."""
    timer = {"class_path": "overhead.FitSeconds", "init_args": {"file": str(folder / "seconds.json")}}
    trainer = config["trainer"] | {"callbacks": [*config["trainer"]["callbacks"], timer]}
    monitor = config.get("monitor", {}) if monitored else None
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"trainer": trainer, "monitor": monitor}))
    command = [sys.executable, str(ROOT / "train.py"), "fit", "-c", str(folder / "config.yaml"), *options]
    command += [f"--trainer.logger.init_args.save_dir={folder}", "--trainer.enable_progress_bar=false"]
    path = os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    values: dict[str, Any] = json.loads((folder / "seconds.json").read_text())
    return values


def main() -> None:
    """Print the table; fail if the budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "mixture.yaml")
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="for fit; must come last")
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text())
    budget = 100.0 * config.get("monitor", {}).get("budget", 0.05)
    found: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        pair = {}
        for monitored in (True, False) if repeat % 2 else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                pair[monitored] = run(config, arguments.options, monitored=monitored, folder=Path(folder))
        own = pair[True]
        counted = 100.0 * own["measuring"] / (own["seconds"] - own["measuring"])
        longer = 100.0 * (own["seconds"] / pair[False]["seconds"] - 1.0)
        found.append({"counted %": counted, "longer %": longer, "with": own, "without": pair[False]})
        print(
            f"fit {own['seconds']:.1f} s with, {pair[False]['seconds']:.1f} s without; "
            f"{own['measuring']:.2f} s in {len(own['each'])} measurements of {own['samples']} samples: "
            f"{counted:.2f} % by its own count (logged: {own['logged %']:.2f} %), {longer:.1f} % by the difference",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    counted = [values["counted %"] for values in found]
    longer = [values["longer %"] for values in found]
    print(f"\n{arguments.config.name}, {os.cpu_count()} cores, torch {torch.__version__}, {platform.machine()}")
    print(f"counted     {min(counted):6.2f} {statistics.median(counted):6.2f} {max(counted):6.2f} % (min, median, max)")
    print(f"difference  {min(longer):6.2f} {statistics.median(longer):6.2f} {max(longer):6.2f} %")
    reached = max(counted) <= budget
    print(f"{'reached' if reached else 'MISSED'}: at most {budget:g} %, the budget")
    sys.exit(not reached)


if __name__ == "__main__":
    main()
