"""The base of the four evaluations of frozen features: their encoders, their samples, and where values are computed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ..callback import Found, MeasuringCallback, OnError
from ..description import explanation
from ..errors import require_whole
from ..probe.samples import ImagesKey, Samples
from ..probe.shards import BatchedShard
from ..probe.sources import Sources, check_probe, find_probe, open_samples, which_loader
from ..runtime.callbacks import callbacks_of
from ..runtime.distributed import broadcast, fail_together, is_global_zero
from ..runtime.encoder import (
    EncoderChoice,
    Encoders,
    embed,
    input_like,
    measured_encoder,
    resolve_encoders,
)
from ..runtime.loggers import log_text
from ..runtime.pooling import Pool
from ..runtime.schedule import Moment, Schedule

BatchFunction = Callable[[Tensor, Tensor], Tensor]


class OnlineEvaluation(MeasuringCallback):
    """Measures frozen features at the end of validation; each kind says in :meth:`gather` what.

    Every process embeds its share of the samples, and the first one computes the values, which are those of one
    process. It measures in ``fit`` and in ``validate``, and at the end of epochs in a run that has no validation at
    all.

    Args:
        num_samples: number of probe samples, chosen at random, the same at each measurement.
        every_n_epochs: number of epochs from one measurement to the next, after the first validation; at least 1.
        encoder: as ``JEPAScoreMonitor`` takes it, or the name of a method of the module (``features``, ``forward``).
            ``None`` means ``features`` where the module has it, else the usual names.
        pool: rule by which tokens or feature maps become one vector, as ``JEPAScoreMonitor`` takes it.
        probe: dataset, DataLoader or tensors to measure on; default: validation data, else training data.
        images: place of the inputs in a sample: a key, a position, or a function; by default the usual places are
            tried.
        on_error: ``warn`` continues training if a measurement fails, with NaN for its values; ``raise`` ends it.
        name: prefix of all tags.
    """

    usual_tags: tuple[str, ...] = ()
    encoder: Encoders

    def __init__(
        self,
        *,
        num_samples: int,
        every_n_epochs: int = 1,
        encoder: EncoderChoice = None,
        pool: Pool = "auto",
        probe: Any = None,
        images: ImagesKey = None,
        on_error: OnError = "warn",
        name: str = "",
    ) -> None:
        require_whole(1, **{"every_n_epochs": every_n_epochs, "the number of samples": num_samples})
        super().__init__(
            pool=pool,
            sources=Sources(probe, None, {}, None, images, None, num_samples),
            schedule=Schedule(every_n_epochs, needs_validation=True),
            on_error=on_error,
            name=name,
        )
        self.encoder = encoder

    @abstractmethod
    def gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features; every process calls it, and the first one then computes values from them."""

    def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Found:
        """Gather features on all processes, and compute values on the first."""
        if self._schedule.step_measured < 0 and (loader := which_loader(self.sources, trainer)):
            rank_zero_info(f"{self._title} {loader}")
        self._log_encoders(trainer, pl_module)
        compute = self.gather(trainer, pl_module)
        # on one process alone: the others' processors, and their rounding, may be others
        with fail_together(pl_module.device):
            found = compute() if is_global_zero() else Found()
        return broadcast(found)

    def _try_settings(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve the encoders, and look into a given probe."""
        resolve_encoders(pl_module, self.encoder, self.pool)
        check_probe(self.sources, trainer)

    @property
    def _tag_prefixes(self) -> tuple[str, ...]:
        return self.usual_tags

    def _expected_tags(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[str, ...]:
        """Tags that there are whatever the data."""
        return self.usual_tags

    def _describe(self, trainer: pl.Trainer, moment: Moment) -> None:
        """Log the page that explains the tags, in ``fit``."""
        if moment.is_fitting:
            log_text(trainer, f"{self._prefix}{self._kind}/tags", explanation(self.values), moment.step)

    def _forget(self) -> None:
        """Drop what belongs to one call of the Trainer: the probe, and which encoders were logged."""
        super()._forget()
        self._probe: BatchedShard | None = None
        self._encoders_logged = ""

    def open_probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> BatchedShard:
        """Open the probe's samples, as many as asked for."""
        if self._probe is not None:
            return self._probe
        with fail_together(pl_module.device):
            found = find_probe(self.sources, trainer)
        samples = open_samples(found, self.sources, pl_module.device)
        self._probe = shard_of(samples, choose(len(samples), self.sources.num_samples), trainer)
        return self._probe

    def encoders(self, pl_module: pl.LightningModule) -> dict[str, BatchFunction]:
        """Name to function from inputs on the CPU and their indices to (b, K) float64, the headline first."""

        def batch_function(encode: Callable[[Tensor], Tensor]) -> BatchFunction:
            precise = measured_encoder(pl_module, encode)
            return lambda inputs, _: embed(precise, input_like(pl_module, inputs, pl_module.device))

        encoders = resolve_encoders(pl_module, self.encoder, self.pool)
        return {name: batch_function(encode) for name, (encode, _) in encoders.items()}

    def _log_encoders(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is measured where that is new, once for all evaluations that were asked for the same."""
        encoders = resolve_encoders(pl_module, self.encoder, self.pool)
        described = ", ".join(f"{name}: {description}" for name, (_, description) in encoders.items())
        if self._encoders_logged != described:
            evaluations = [found for found in callbacks_of(trainer) if isinstance(found, OnlineEvaluation)]
            alike = [found for found in evaluations if (found.encoder, found.pool) == (self.encoder, self.pool)]
            if all(found._encoders_logged != described for found in alike):
                names = " and ".join(", ".join(found._title for found in alike).rsplit(", ", 1))
                rank_zero_info(f"{names} measure{'s' if len(alike) == 1 else ''} {described}.")
            self._encoders_logged = described


def choose(size: int, count: int, *, after: int = 0) -> Tensor:
    """(n,) positions of at most ``count`` of ``size`` samples, without those chosen by a smaller ``after``.

    At random, always the same: the first samples of a folder of images are all of one class.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return order[after : after + count].sort().values


def shard_of(samples: Samples, positions: Tensor, trainer: pl.Trainer) -> BatchedShard:
    """Select this process's shard of some samples."""
    return BatchedShard(samples, positions, trainer.global_rank, trainer.world_size)
