"""Trains the default config with and without the monitor and prints what the monitor costs.

    python benchmarks/overhead.py [--repeats 3] [--config FILE] [--json FILE] [-- MORE OPTIONS OF fit]

Runs are interleaved, each in a process of its own. Two figures, which should agree: the seconds that the monitor says
of itself (``monitor/overhead(%)`` at the end of the run), and the difference between the training seconds of runs with
and without it. Asserts that the first is at most the budget.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import json, sys, time
import lightning.pytorch as pl
from jepa_monitor import JEPAScoreMonitor
from jepa_train.cli import main

class Stopwatch(pl.Callback):
    seconds = 0.0
    def setup(self, trainer, pl_module, stage):
        if not {monitored}:
            trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, JEPAScoreMonitor)]
    def on_fit_start(self, trainer, pl_module):
        self.started = time.monotonic()
    def on_fit_end(self, trainer, pl_module):
        values = {{"seconds": time.monotonic() - self.started}}
        for monitor in trainer.callbacks:
            if isinstance(monitor, JEPAScoreMonitor):
                values["spent"] = monitor.seconds_spent
                values["measurements"] = len(monitor.history)
                values["samples"] = monitor.history.values["monitor/samples"]
        json.dump(values, open({output!r}, "w"))

main(["fit", *{options!r}], callbacks=[Stopwatch()])
"""
