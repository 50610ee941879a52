"""Weighted k-nearest-neighbour accuracy of the frozen encoder, beside that of raw pixels."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from jepa_monitor.encoding import embed, evaluating
from jepa_monitor.probe import gather_by_index
from jepa_train.data.base import ImageDataModule


def weighted_knn(queries: Tensor, bank: Tensor, labels: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Labels by a vote of the nearest neighbours in cosine similarity, weighted by exp(similarity / temperature).

    Both sets are centred on the bank's mean first: without it, features that share an offset all look alike.

    Args:
        queries: (Q, D).
        bank: (B, D).
        labels: (B,) of the bank, from 0.
        k: neighbours.
        temperature: of the weights.

    Returns:
        (Q,) labels.
    """
    mean = bank.mean(0)
    bank = F.normalize(bank - mean, dim=1)
    votes = []
    for part in queries.split(2048):
        similarity, neighbours = (F.normalize(part - mean, dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        tally = weight.new_zeros(len(part), int(labels.max()) + 1)
        votes.append(tally.scatter_add_(1, labels[neighbours], weight).argmax(1))
    return torch.cat(votes)


class WeightedKNN(pl.Callback):
    """Logs ``knn/accuracy`` (mean token), ``knn/accuracy_embedding`` (z) and ``knn/accuracy_pixels``, the line to beat.

    The bank is the start of the DataModule's training images, the queries are the start of its probe. Like the
    monitor it leaves training as it was, and every process logs the same values.

    Args:
        bank_size: training images with labels.
        num_queries: probe images to classify.
        k, temperature: of the vote.
        every_n_epochs: measure at the end of each n-th validation epoch, in ``fit``.
    """

    def __init__(
        self,
        bank_size: int = 5_000,
        num_queries: int = 10_000,
        k: int = 20,
        temperature: float = 0.07,
        every_n_epochs: int = 1,
    ) -> None:
        self.bank_size = bank_size
        self.num_queries = num_queries
        self.k = k
        self.temperature = temperature
        self.every_n_epochs = every_n_epochs
        self._pixel_accuracy: float | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure in ``fit`` and in ``validate``."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if trainer.sanity_checking or (fitting and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        data = cast("ImageDataModule", getattr(trainer, "datamodule", None))
        with isolate_rng(), evaluating(pl_module), torch.no_grad():
            bank = _read(data.reference_dataset(), self.bank_size)
            queries = _read(data.probe_dataset(), self.num_queries)
            if self._pixel_accuracy is None:
                self._pixel_accuracy = self._accuracy(*bank, *queries)
            values = {"knn/accuracy_pixels": self._pixel_accuracy}
            for name, function in (("knn/accuracy", _features_of(pl_module)), ("knn/accuracy_embedding", pl_module)):
                bank_z, queries_z = (
                    _embed_shared(trainer, pl_module, function, images) for images, _ in (bank, queries)
                )
                values[name] = self._accuracy(bank_z, bank[1], queries_z, queries[1])
        for logger in trainer.loggers if fitting else ():
            logger.log_metrics(values, step=trainer.global_step)
        for tag, value in values.items():
            pl_module.log(tag, value, logger=False if fitting else None, on_step=False, on_epoch=True, batch_size=1)

    def _accuracy(self, bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
        predicted = weighted_knn(
            queries.flatten(1).float(), bank.flatten(1).float(), labels, k=self.k, temperature=self.temperature
        )
        return float((predicted == truth).double().mean())


def _features_of(pl_module: pl.LightningModule) -> Any:
    return getattr(pl_module, "features", pl_module)


def _read(dataset: Any, count: int) -> tuple[Tensor, Tensor]:
    batch = default_collate([dataset[i] for i in range(min(count, len(dataset)))])
    return batch["image"], batch["label"]


def _embed_shared(trainer: pl.Trainer, pl_module: pl.LightningModule, function: Any, images: Tensor) -> Tensor:
    """Features of all images, each process computing its share."""
    mine = torch.arange(trainer.global_rank, max(len(images), trainer.global_rank + 1), trainer.world_size)
    mine = mine.clamp_max(len(images) - 1)
    features = embed(lambda part: function(part.to(pl_module.device)), images[mine])
    return gather_by_index(mine.to(pl_module.device), features)
