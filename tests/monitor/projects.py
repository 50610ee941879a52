"""A Lightning project that knows nothing of this package, for tests of the callback."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


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
