"""Trains on one or more processes and writes what it saw; started by test_distributed.py, once a world size.

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
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.tensor import DTensor

from jepa_monitor import JEPAScoreMonitor
from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA
from jepa_train.parallel import disconnect

GLOBAL_BATCH = 36
STEPS = 20
WHOLE: dict[str, Any] = {"token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}  # nothing is hidden
CASES: dict[str, dict[str, Any]] = {
    "sigreg": {"anticollapse": "sigreg"},
    "barlow": {"anticollapse": "barlow", "token_weight": 0.0},
    "vicreg": {"anticollapse": "vicreg", "anticollapse_on": "both"},
    "sharded": {"anticollapse": "sigreg", "spectral_weight": 0.01},
    "sharded_resnet": {**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}},
    "lejepa": {
        **WHOLE,
        "local_views": 3,
        "local_size": 8,
        "crop_aspect": 1.3,
        "brightness": 0.2,
        "contrast": 0.3,
        "ema_start": 0.9,
    },
    "resnet": {**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}},
}


class WithShifted(MixtureDataModule):
    """The mixture with another set of 5 images, and batches in double precision."""

    def ood_datasets(self) -> dict[str, Any]:
        return {"shifted": self.probe_dataset().images[:5] + 1.0}

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


class Losses(pl.Callback):
    """The global loss of every step: the mean over processes of equal batches."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = torch.as_tensor(outputs["loss"]).detach()
        self.values.append(float(trainer.strategy.reduce(loss, reduce_op="mean")))


def strategy_of(case: str, world_size: int) -> Strategy | str:
    if world_size == 1:
        return "auto"
    limits: dict[str, Any] = {"process_group_backend": "gloo", "timeout": timedelta(seconds=60)}
    if case.startswith("sharded"):
        return ModelParallelStrategy(data_parallel_size=world_size, tensor_parallel_size=1, **limits)
    return DDPStrategy(**limits)


def main(world_size: int, case: str, folder: Path) -> None:
    """Run and write ``{case}_{world_size}_{rank}.json``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    data = WithShifted(num_train=GLOBAL_BATCH * STEPS, num_probe=67, batch_size=GLOBAL_BATCH // world_size)
    module = JEPA(
        image_size=16,
        channels=1,
        patch_size=4,
        embedding_size=3,
        projector_hidden=16,
        predictor_width=16,
        predictor_depth=1,
        num_targets=2,
        sigreg_slices=16,
        crop_scale=0.7,
        flip=True,
        anticollapse_weight=0.5,
        **{"encoder_overrides": {"embed_dim": 32, "depth": 2, "num_heads": 2}, **CASES[case]},
    )
    # in double precision what differs is wrong, not rounded: in single precision a ResNet's rounding grows to 4e-3
    sharded = case.startswith("sharded")
    if sharded:  # whose strategy refuses 64-true
        module.double()
    losses = Losses()
    best = ModelCheckpoint(folder / f"{case}_{world_size}", monitor="density/spearman", mode="max")
    trainer = pl.Trainer(
        max_steps=STEPS,
        precision="32-true" if sharded else "64-true",
        accelerator="cpu",
        devices=world_size,
        strategy=strategy_of(case, world_size),
        logger=False,
        callbacks=[JEPAScoreMonitor(num_samples=67), losses, best],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    whole = [part.full_tensor() if isinstance(part, DTensor) else part for part in module.parameters()]
    weights = torch.cat([parameter.detach().flatten() for parameter in whole]).double()
    result = {"losses": losses.values, "metrics": metrics, "weights": weights.tolist(), "best": best.best_model_path}
    (folder / f"{case}_{world_size}_{trainer.global_rank}.json").write_text(json.dumps(result))
    disconnect()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
