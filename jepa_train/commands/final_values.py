"""The row of a run in TensorBoard's HPARAMS tab: what it was, and its last values."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

FINAL = (
    "density/spearman",
    "density/stability",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/effective_rank_ratio",
    "density/intrinsic_dimension",
    "knn/accuracy",
    "linear_probe/accuracy",
    "monitor/keep",
    "train/loss",
)
TERMS = {"token_weight": "tokens", "embedding_weight": "embedding", "centre_weight": "centre"}


class FinalValues(pl.Callback):
    """Logs objective, data, K and seeds of a run with its last values, through the logger's ``log_hyperparams``."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log them where there is something to compare runs by."""
        found = {tag: float(trainer.callback_metrics[tag]) for tag in FINAL if tag in trainer.callback_metrics}
        metrics = {tag: value for tag, value in found.items() if math.isfinite(value)}
        if not metrics:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                facts = facts_of(pl_module.hparams, trainer.datamodule)  # type: ignore[attr-defined]  # set by its data connector
                logger.log_hyperparams(facts, metrics=metrics, step=trainer.global_step)


def facts_of(settings: Any, datamodule: Any) -> dict[str, Any]:
    """Name what runs differ in: objective, data, K, seeds, encoder and learning rate.

    Args:
        settings: arguments of the module.
        datamodule: its data.
    """
    return {
        "objective": objective_of(settings),
        "data": type(datamodule).__name__.removesuffix("DataModule"),
        "K": settings["embedding_size"],
        "model_seed": settings["seed"],
        "data_seed": getattr(datamodule, "seed", "-"),
        "encoder": settings["encoder"],
        "peak_learning_rate": settings["learning_rate"],
    }


def objective_of(settings: Any) -> str:
    """Write an objective as the terms that have a weight, such as ``tokens + embedding + sigreg``."""
    terms = [name for weight, name in TERMS.items() if settings[weight] > 0.0]
    if settings["anticollapse"] != "none" and settings["anticollapse_weight"] > 0.0:
        terms.append(settings["anticollapse"])
    if settings["spectral_weight"] > 0.0:
        terms.append("spectral norm")
    return " + ".join(terms)
