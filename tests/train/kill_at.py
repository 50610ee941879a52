"""A callback that ends its process as a scheduler or the kernel does: at once, without any goodbye."""

from __future__ import annotations

import os
import signal
from typing import Any

import lightning.pytorch as pl


class KillAt(pl.Callback):
    """SIGKILL between the fetch of a batch and its training step.

    Args:
        step: optimizer steps done by then.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Die if it is time."""
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
