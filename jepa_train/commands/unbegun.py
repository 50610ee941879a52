"""A run that ends before its first batch leaves no folder behind."""

from __future__ import annotations

import os
import shutil
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


class DiscardUnbegun(pl.Callback):
    """Removes the folder that a run made for its logs, if it ends, by itself or not, before its first batch.

    A folder that was there before is left alone, whatever it holds.

    Args:
        trainer: the trainer of the run, before anything was logged.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._made: str | None = None
        if isinstance(trainer.logger, (TensorBoardLogger, CSVLogger)) and trainer.is_global_zero:
            folder = str(trainer.logger.log_dir)
            self._made = None if os.path.exists(folder) else folder

    def on_train_batch_start(self, *args: Any) -> None:
        """Keep the folder from now on."""
        self._made = None

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Keep the folder from now on, unless this is validation within ``fit``, before training."""
        if trainer.validating:
            self._made = None

    def on_test_batch_start(self, *args: Any) -> None:
        """Keep the folder from now on."""
        self._made = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the folder."""
        self._discard(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the folder of a run that had no batches at all."""
        self._discard(trainer)

    def _discard(self, trainer: pl.Trainer) -> None:
        if self._made is not None:
            for logger in trainer.loggers:
                logger.finalize("failed")  # closes their files
            shutil.rmtree(self._made, ignore_errors=True)
