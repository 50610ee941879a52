"""Hundreds of measurements leave nothing behind: no memory, no file handles."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer, true_log_density

MEASUREMENTS = 500
WARM_UP = 100
LARGEST_GROWTH = 10 * 2**20
PICTURES_EACH = 20

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode"),
    pytest.mark.filterwarnings("ignore:JEPAScoreMonitor"),
]


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free, but kept by the allocator, is no leak
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Meter(pl.Callback):
    """Memory and file handles after each measurement."""

    def __init__(self, logger: TensorBoardLogger) -> None:
        self.logger = logger
        self.bytes: list[int] = []
        self.files: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        # pictures are drawn at some of the measurements only: all of them each time would take minutes
        trainer.loggers = [self.logger] if trainer.global_step % PICTURES_EACH == 0 else []
        if trainer.global_step % WARM_UP == 0:
            self.bytes.append(resident_bytes())
            self.files.append(open_files())


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="reads memory as Linux and its allocator tell it")
def test_measurements_leak_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    callback = monitor(
        probe=images(16, seed=1),
        reference=images(16),
        log_density=true_log_density,
        num_samples=16,
        every_n_steps=1,
        every_n_epochs=0,
        at_start=False,
    )
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    meter = Meter(logger)
    run = trainer(
        tmp_path, meter, callback, logger=logger, max_epochs=-1, max_steps=MEASUREMENTS, num_sanity_val_steps=0
    )
    run.fit(Autoencoder(), loader(64, shuffle=True), loader(8, seed=1))
    assert callback.history.steps[-1] == MEASUREMENTS
    assert len(meter.bytes) == MEASUREMENTS // WARM_UP
    assert meter.bytes[-1] - meter.bytes[0] < LARGEST_GROWTH
    assert meter.files[-1] <= meter.files[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_gpu_memory_is_kept(tmp_path: Path) -> None:
    after: list[int] = []

    class Allocated(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            after.append(torch.cuda.memory_allocated())

    run = trainer(tmp_path, monitor(), Allocated(), accelerator="gpu", devices=1, max_epochs=5, num_sanity_val_steps=0)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert len(after) == 5
    assert set(after[2:]) == {after[1]}  # the first measurement makes the workspaces of torch's libraries
