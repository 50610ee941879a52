"""A Lightning project that knows nothing of this package, and Trainers, loggers and monitors to try on it."""

from __future__ import annotations

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from jepa_monitor import JEPAScoreMonitor


class Autoencoder(pl.LightningModule):
    """Dropout, batch norm, random masking and a frozen part: everything that a careless monitor disturbs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.2))
        self.bottleneck = nn.Linear(12, 3)
        self.frozen = nn.BatchNorm1d(3).requires_grad_(False).eval()
        self.decoder = nn.Linear(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(self.encoder(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        masked = x * (torch.rand_like(x) > 0.3)
        loss = (self.decoder(self.frozen(self(masked))) - x.flatten(1)).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), lr=0.01)


def images(count: int = 48, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def loader(count: int = 48, *, seed: int = 0, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(TensorDataset(images(count, seed)), batch_size=8, shuffle=shuffle)


def true_log_density(x: Tensor) -> Tensor:
    return -0.5 * x.flatten(1).square().sum(1)


def trainer(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    defaults = {"accelerator": "cpu", "max_epochs": 2, "logger": False, "enable_checkpointing": False}
    return pl.Trainer(
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        **(defaults | {"num_sanity_val_steps": 2} | settings),
    )


DEFAULTS = {
    "encoder": lambda module, x: module(x),
    "log_density": true_log_density,
    "budget": None,
    "on_error": "raise",
}


def monitor(**settings: Any) -> JEPAScoreMonitor:
    return JEPAScoreMonitor(**(DEFAULTS | settings))


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    return events.Reload()


class Memory(Logger):
    """A logger of which nothing is known but what every logger has."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "density/spearman" in metrics:
            self.written.append((step, dict(metrics)))


def trainer_on(
    rank: int, world_size: int, *callbacks: pl.Callback, strategy: Any = None, **settings: Any
) -> pl.Trainer:
    """A Trainer that takes part in the process group there is."""
    warnings.simplefilter("ignore")
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in names.items()} | {"GROUP_RANK": "0"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999", "TORCHELASTIC_RUN_ID": "test"})
    defaults = {"accelerator": "cpu", "max_epochs": 2, "logger": False, "enable_checkpointing": False}
    return pl.Trainer(
        devices=world_size,
        strategy=strategy or DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=30)),
        plugins=[TorchElasticEnvironment()],
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **(defaults | settings),
    )


def monitor_with_set(**settings: Any) -> JEPAScoreMonitor:
    """A monitor with a further set."""
    return monitor(**({"ood": {"far": 3.0 * images(5, seed=5)}} | settings))


def seeded() -> Autoencoder:
    """The same module in each process."""
    pl.seed_everything(0, verbose=False)
    return Autoencoder()


def compare(found: dict[str, float], expected: dict[str, float], **tolerance: float) -> None:
    """Two processes, or two numbers of them, have measured the same; times and counts apart."""
    names = [name for name in expected if "monitor/" not in name]
    assert len(names) > 30
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **tolerance)
