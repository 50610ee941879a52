"""Modules and data of projects that know nothing of the monitor, and what must be measured in all of them."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.helpers import monitor

small_monitor = partial(monitor, encoder=None, log_density=None, num_samples=96)

FINITE = (
    "scores/log_density_median",
    "scores/jepa_score_median",
    "scores/complexity_spearman",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/effective_rank_ratio",
    "jacobian/rank",
    "monitor/seconds",
)


def trainer(folder: Path, *callbacks: Any, package: Any = pl, **settings: Any) -> Any:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"max_epochs": 1, "logger": False, "log_every_n_steps": 1} | quiet
    return package.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **defaults | settings)


def fit(folder: Path, module: Any, train: Any, *callbacks: Any, val: Any = None, **settings: Any) -> Any:
    run = trainer(folder, *callbacks, **settings)
    run.fit(module, train, val)
    return run


def assert_meaningful(values: dict[str, Any]) -> None:
    for tag in FINITE:
        assert math.isfinite(values[tag]), tag
    assert values["jacobian/nonfinite_fraction"] == 0
    assert values["jacobian/rank"] >= 1
    assert values["jacobian/clipped_fraction"] < 1


def assert_embeds(callback: JEPAScoreMonitor, expected: Tensor) -> None:
    assert callback.readings is not None
    torch.testing.assert_close(callback.readings.z, expected.detach().double(), rtol=1e-4, atol=1e-5)


def pixels(count: int = 96, size: int = 8, channels: int = 3, seed: int = 0) -> Tensor:
    """Noise of a contrast that differs from image to image, so that some are denser and simpler than others."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.05, 1.0, count)[:, None, None, None]


def labels(count: int = 96) -> Tensor:
    return torch.arange(count) % 3


def images_with_labels() -> TensorDataset:
    return TensorDataset(pixels(), labels())


class Classifier(pl.LightningModule):
    """A network of somebody else with a head of one's own."""

    def __init__(self, network: nn.Module, head: nn.Module, features: Any = lambda out: out) -> None:
        super().__init__()
        self.network, self.head, self.features = network, head, features

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.network(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ConvAutoencoder(pl.LightningModule):
    """Trained on images without labels, without validation, with operations in place and a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Conv2d(8, 4, 3, 2, 1),
        )
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.mse_loss(self.decoder(self.encoder(batch)), batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class TextEncoder(pl.LightningModule):
    """Reads token numbers; what can be differentiated is their embeddings (T, E)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = nn.Embedding(11, 8), encoder, nn.Linear(8, 11)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (tokens,) = batch
        encoded = self.encoder(self.embedding(tokens))
        logits = self.head(encoded[0] if isinstance(encoded, tuple) else encoded)
        return functional.cross_entropy(logits.transpose(1, 2), tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=2)


def sentences(count: int = 96, length: int = 5) -> Tensor:
    return torch.randint(11, (count, length), generator=torch.Generator().manual_seed(0))


def spoken(count: int = 96, length: int = 5) -> Tensor:
    return torch.randn(count, length, 8, generator=torch.Generator().manual_seed(1))
