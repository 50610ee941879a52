"""When online evaluations measure, on what, and where their values go. No mathematics here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .. import tags
from ..agreement import from_first, is_first, together
from ..encoding import Pool, embed, in_full_precision, input_like, is_sharded, is_tensor_parallel
from ..isolation import undisturbed
from ..notices import Notices
from ..probe import ImagesKey, LabelsKey, Samples
from ..publishing import announce, log_scalars, log_text
from ..sources import Sources, find_probe, open_samples
from .encoders import Encoders, resolve_encoders
from .parts import Part

OnError = Literal["warn", "raise"]
OfBatch = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Found:
    """Values by tag, and why some of them are NaN or missing."""

    values: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


@dataclass
class _Run:
    """What belongs to one ``fit`` or ``validate``, and is forgotten at the next."""

    notices: Notices
    step_measured: int = -1
    is_done: bool = False  # in the validation under way
    introduced: set[str] = field(default_factory=set)


class OnlineEvaluation(pl.Callback, ABC):
    """Measures frozen features at the end of validation; each kind says in :meth:`observe` what.

    Training with and without it is the same, bit for bit. Every process embeds its share of the samples, and all log
    the same values, which are those of one process, so ``ModelCheckpoint(monitor=tag)`` works on any number of them.

    It measures in ``fit`` and in ``validate``: in ``fit`` at the first validation, and then at those of each n-th
    epoch, or at the end of these epochs where there is no validation at all.

    Args:
        encoder, pool: see the kinds.
        probe, reference, images, labels: where data come from, as :class:`jepa_monitor.JEPAScoreMonitor` takes them.
        num_samples: of the probe.
        every_n_epochs: at least 1.
        on_error: ``warn`` goes on training when a measurement fails, with NaN for its values; ``raise`` does not.
        name: goes before all tags.

    Raises:
        ValueError: for settings that make no sense.
    """

    usual_tags: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        encoder: Encoders,
        pool: Pool,
        probe: Any,
        reference: Any,
        images: ImagesKey,
        labels: LabelsKey,
        num_samples: int,
        every_n_epochs: int,
        on_error: OnError,
        name: str,
    ) -> None:
        if every_n_epochs < 1 or num_samples < 1:
            raise ValueError(
                "every_n_epochs and numbers of samples must be at least 1, "
                f"got every_n_epochs {every_n_epochs} and {num_samples} samples."
            )
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be warn or raise, got {on_error!r}.")
        self.encoder = encoder
        self.pool = pool
        self.sources = Sources(probe, reference, {}, None, images, labels, num_samples)
        self.every_n_epochs = every_n_epochs
        self.on_error = on_error
        self.name = name
        self.values: dict[str, float] = {}
        self._run = _Run(Notices(self._title))
        self.forget()

    @abstractmethod
    def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features; every process calls it, and the first one then computes values from them."""

    def forget(self) -> None:
        """Data are looked for anew."""
        self._probe: Part | None = None

    # when

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Another call of the Trainer may come with another project."""
        self._run, self.values = _Run(Notices(self._title)), {}
        self.forget()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure after the last batch: weight averaging has its weights in then, whatever the order of callbacks."""
        loop = trainer.fit_loop.epoch_loop.val_loop if _is_fitting(trainer) else trainer.validate_loop
        if loop.batch_progress.is_last_batch:
            self._measure_if_due(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Announce what was measured; measure here if the last batch was not known."""
        if trainer.sanity_checking:
            return
        self._measure_if_due(trainer, pl_module)
        self._run.is_done = False
        announce(trainer, pl_module, self._named(self.values))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for a run without validation."""
        if not trainer.enable_validation:
            self.on_validation_epoch_end(trainer, pl_module)

    def _measure_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run, fitting = self._run, _is_fitting(trainer)
        if trainer.sanity_checking or run.is_done:
            return
        run.is_done = True
        in_turn = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and trainer.global_step != run.step_measured
        # at the first too: a callback that follows a tag must find it
        if not fitting or run.step_measured < 0 or in_turn:
            run.step_measured = trainer.global_step
            self._measure(trainer, pl_module)

    # what

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        device, failure = pl_module.device, None
        try:
            with undisturbed(pl_module):
                compute = self.observe(trainer, pl_module)
                # once and handed round: the others' processors, and their rounding, may be others
                found = from_first(together(lambda: compute() if is_first() else Found(), device=device))
            if _is_fitting(trainer):
                together(lambda: self._write(trainer, found.values), device=device)
        except Exception as error:  # whatever it was, training must not end by it
            if self.on_error == "raise":
                raise
            failure = f"could not measure, and training goes on: {type(error).__name__}: {error}"
            found = Found(dict.fromkeys(self.values or self.usual_tags, math.nan), [failure])
        self._run.notices.tell_new("failure", [failure] if failure else [])
        self._run.notices.tell_new("meaning", [] if failure else found.reasons)
        self.values = found.values

    def _write(self, trainer: pl.Trainer, values: Mapping[str, float]) -> None:
        step = trainer.global_step
        if values:
            log_scalars(trainer, self._named(values), step)
        if values.keys() - self._run.introduced:
            self._run.introduced |= values.keys()
            log_text(trainer, f"{self._prefix}{type(self).__name__}/tags", tags.explanation(values), step)

    # of what

    def open_probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Part:
        """The probe's samples, as many as asked for."""
        if self._probe is not None:
            return self._probe
        found = together(lambda: find_probe(self.sources, trainer), device=pl_module.device)
        samples = open_samples(found, self.sources, pl_module.device)
        self._probe = part_of(samples, choose(len(samples), self.sources.num_samples), trainer)
        return self._probe

    def encoders(self, pl_module: pl.LightningModule) -> dict[str, OfBatch]:
        """Name to function from inputs on the CPU and their indices to (b, K) float64, the headline first."""
        if is_tensor_parallel(pl_module):
            raise ValueError("tensor-parallel weights cannot be measured: each process would read other samples.")
        sharded = is_sharded(pl_module)

        def of_batch(encode: Callable[[Tensor], Tensor]) -> OfBatch:
            precise = encode if sharded else in_full_precision(pl_module, encode)
            return lambda inputs, _: embed(precise, input_like(pl_module, inputs, pl_module.device))

        encoders = resolve_encoders(pl_module, self.encoder, self.pool)
        return {name: of_batch(encode) for name, encode in encoders.items()}

    def _named(self, values: Mapping[str, float]) -> dict[str, float]:
        return {self._prefix + tag: value for tag, value in values.items()}

    @property
    def _prefix(self) -> str:
        return f"{self.name}/" if self.name else ""

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} {self.name}".strip()


def choose(size: int, count: int, *, after: int = 0) -> Tensor:
    """(n,) positions of at most ``count`` of ``size`` samples, without those chosen by a smaller ``after``.

    At random, always the same: the first samples of a folder of images are all of one class.
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    return order[after : after + count].sort().values


def part_of(samples: Samples, positions: Tensor, trainer: pl.Trainer) -> Part:
    """This process's part of some samples."""
    return Part(samples, positions, trainer.global_rank, trainer.world_size)


def _is_fitting(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING
