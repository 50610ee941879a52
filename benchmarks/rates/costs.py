"""Cost of a pass or of a process: time of the CPU, and the peak of its memory."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

KIB = 1 << 10


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own, and return its result with the peak of its memory in MiB."""
    # not a pool of multiprocessing, whose processes may start no workers
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, arguments).result()


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    result = function(*arguments)
    return result, _kib("VmHWM") / KIB  # not the record of getrusage, which begins with the peak of the parent


class Peak(Callback):
    """The most memory that a block takes above what the process holds before it, in MiB, or a pass of a Trainer.

    A process's own record goes back to its start, and importing torch takes more than an encoder of small images.
    """

    mib = math.nan

    def __enter__(self) -> Peak:
        """Forget earlier peaks, and give back what is free."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _kib("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        """Read the peak."""
        self.mib = (_kib("VmHWM") - self._before) / KIB

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin; of several passes the last counts."""
        self.__enter__()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.__exit__()


def _kib(name: str) -> int:
    """A line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


class Clock(Callback):
    """Seconds of the CPU that the last pass of a Trainer takes."""

    seconds = math.nan

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._start = time.process_time()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.seconds = time.process_time() - self._start


def cpu_seconds() -> float:
    """Time that this process and its workers spent on CPUs, whatever else is running there."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def medians(rates: dict[str, list[float]]) -> dict[str, float]:
    """Median of each list."""
    return {name: statistics.median(values) for name, values in rates.items()}
