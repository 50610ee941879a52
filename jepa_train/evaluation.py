"""Weighted k-nearest-neighbour accuracy of the frozen encoder, beside that of raw pixels."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from jepa_monitor.encoding import embed
from jepa_monitor.isolation import undisturbed
from jepa_monitor.probe import gather_by_index
from jepa_train.data.base import ImageDataModule
from jepa_train.errors import ConfigurationError


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


def whiten(queries: Tensor, bank: Tensor, *, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Both sets in the coordinates in which the bank is white.

    Pooled tokens vary hundreds of times more along some directions than along others; distances would see the first
    few alone.

    Args:
        queries: (Q, D).
        bank: (B, D).
        ridge: added to every variance, as a share of the mean variance: keeps directions without any from blowing up.

    Returns:
        queries and bank, (Q, D) and (B, D), in float64.
    """
    mean = bank.double().mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(bank.double().T))
    scaled_axes = axes / (variances.clamp_min(0.0) + ridge * variances.mean()).sqrt()
    return (queries.double() - mean) @ scaled_axes, (bank.double() - mean) @ scaled_axes


class WeightedKNN(pl.Callback):
    """Logs the accuracy of a nearest-neighbour vote on the frozen encoder, and on pixels: the lines to beat.

    ``knn/accuracy``: whitened mean token; ``knn/accuracy_unwhitened``: mean token; ``knn/accuracy_embedding``: z;
    ``knn/accuracy_pixels``: raw pixels; ``knn/accuracy_pixels_whitened``: whitened pixels, a much stronger baseline.

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
        self._of_pixels: dict[str, float] | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure in ``fit`` and in ``validate``."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if trainer.sanity_checking or (fitting and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise ConfigurationError("WeightedKNN takes its bank and queries from an ImageDataModule: pass one to fit.")
        with undisturbed(pl_module):
            bank = _read(data.reference_dataset(), self.bank_size)
            queries = _read(data.probe_dataset(), self.num_queries)
            if self._of_pixels is None:
                pixels = (queries[0].flatten(1), bank[0].flatten(1))
                self._of_pixels = {
                    "knn/accuracy_pixels": self._accuracy(pixels, bank[1], queries[1]),
                    "knn/accuracy_pixels_whitened": self._accuracy(whiten(*pixels), bank[1], queries[1]),
                }
            features = getattr(pl_module, "features", pl_module)
            tokens = tuple(_embed_shared(trainer, pl_module, features, images) for images, _ in (queries, bank))
            embeddings = tuple(_embed_shared(trainer, pl_module, pl_module, images) for images, _ in (queries, bank))
            values = self._of_pixels | {
                "knn/accuracy": self._accuracy(whiten(*tokens), bank[1], queries[1]),
                "knn/accuracy_unwhitened": self._accuracy(tokens, bank[1], queries[1]),
                "knn/accuracy_embedding": self._accuracy(embeddings, bank[1], queries[1]),
            }
        for logger in trainer.loggers if fitting else ():
            logger.log_metrics(values, step=trainer.global_step)
        for tag, value in values.items():
            pl_module.log(tag, value, logger=False if fitting else None, on_step=False, on_epoch=True, batch_size=1)

    def _accuracy(self, sets: tuple[Tensor, ...], labels: Tensor, truth: Tensor) -> float:
        queries, bank = sets
        predicted = weighted_knn(queries.float(), bank.float(), labels, k=self.k, temperature=self.temperature)
        return float((predicted == truth).double().mean())


def _read(dataset: Any, count: int) -> tuple[Tensor, Tensor]:
    batch = default_collate([dataset[i] for i in range(min(count, len(dataset)))])
    return batch["image"], batch["label"]


def _embed_shared(trainer: pl.Trainer, pl_module: pl.LightningModule, function: Any, images: Tensor) -> Tensor:
    """Features of all images, each process computing its share."""
    mine = torch.arange(trainer.global_rank, max(len(images), trainer.global_rank + 1), trainer.world_size)
    mine = mine.clamp_max(len(images) - 1)
    features = embed(lambda part: function(part.to(pl_module.device)), images[mine])
    return gather_by_index(mine.to(pl_module.device), features)
