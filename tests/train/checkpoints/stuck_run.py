"""Two processes of which one never reaches the end of its step; started by test_stopping.py as a script."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor

from jepa_train.checkpoints.stopping import ClosingCheckpoint, StopSignals


class Stuck(BoringModel):
    """Rank 0 waits for the gradients of rank 1, which is asked to stop and does not come."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            while self.global_rank == 1:
                time.sleep(1)
        loss = super().training_step(batch, batch_idx)
        assert isinstance(loss, dict)
        return loss["loss"]


if __name__ == "__main__":
    signals = StopSignals(grace_seconds=float(sys.argv[1]))
    saving = ModelCheckpoint(sys.argv[2], save_last=True, every_n_train_steps=2)
    pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        callbacks=[signals, saving, ClosingCheckpoint(signals)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    ).fit(Stuck())
