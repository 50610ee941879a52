"""Trains on one or two processes and writes what it saw; started by test_distributed.py, once a world size.

A script and not a function of the test: each process must begin without the test's threads and state.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from jepa_monitor import JEPAScoreMonitor
from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA

GLOBAL_BATCH = 32
STEPS = 20


class WithShifted(MixtureDataModule):
    """The mixture with another set of 5 images."""

    def ood_datasets(self) -> dict[str, Any]:
        return {"shifted": self.probe_dataset().images[:5] + 1.0}


class Losses(pl.Callback):
    """The global loss of every step: the mean over processes of equal batches."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = torch.as_tensor(outputs["loss"]).detach()
        self.values.append(float(trainer.strategy.reduce(loss, reduce_op="mean")))


def main(world_size: int, anticollapse: str, folder: Path) -> None:
    """Run and write ``{anticollapse}_{world_size}_{rank}.json``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    data = WithShifted(num_train=GLOBAL_BATCH * STEPS, num_probe=67, batch_size=GLOBAL_BATCH // world_size)
    module = JEPA(
        image_size=16,
        channels=1,
        encoder_overrides={"embed_dim": 32, "depth": 2, "num_heads": 2},
        patch_size=4,
        embedding_size=3,
        projector_hidden=16,
        predictor_width=16,
        predictor_depth=1,
        num_targets=2,
        sigreg_slices=16,
        crop_scale=0.7,
        flip=True,
        anticollapse=anticollapse,  # type: ignore[arg-type]  # one of its names, from the command line
        anticollapse_weight=0.5,
    )
    losses = Losses()
    best = ModelCheckpoint(folder / f"{anticollapse}_{world_size}", monitor="density/spearman", mode="max")
    trainer = pl.Trainer(
        max_steps=STEPS,
        precision="64-true",  # so that what differs is wrong, not rounded
        accelerator="cpu",
        devices=world_size,
        strategy=DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60)) if world_size > 1 else "auto",
        logger=False,
        callbacks=[JEPAScoreMonitor(num_samples=67), losses, best],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).double()
    result = {"losses": losses.values, "metrics": metrics, "weights": weights.tolist(), "best": best.best_model_path}
    (folder / f"{anticollapse}_{world_size}_{trainer.global_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
