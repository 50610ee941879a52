"""When online evaluations measure, on what, and where their values go. No mathematics here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from .. import tags
from ..probe.samples import ImagesKey, LabelsKey, Samples
from ..probe.shards import Part
from ..probe.sources import Sources, check_probe, find_probe, open_samples, which_loader
from ..runtime.distributed import broadcast, fail_together, is_global_zero
from ..runtime.encoder import Pool, check_pool, embed, in_full_precision, input_like, is_sharded, is_tensor_parallel
from ..runtime.isolation import undisturbed
from ..runtime.loggers import announce, log_scalars, log_text
from ..runtime.notices import Notices
from ..runtime.schedule import Schedule, is_fitting, is_last_batch_of_validation
from ..runtime.settings import require_possible, require_whole, warn_of_followers, what_training_does
from .encoders import Encoders, resolve_encoders

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
    introduced: set[str] = field(default_factory=set)
    encoders_logged: str = ""


class OnlineEvaluation(pl.Callback, ABC):
    """Measures frozen features at the end of validation; each kind says in :meth:`observe` what.

    Training with and without it is the same, bit for bit. Every process embeds its share of the samples, and all log
    the same values, which are those of one process, so ``ModelCheckpoint(monitor=tag, mode="max")`` works on any number
    of them.

    It measures in ``fit`` and in ``validate``: in ``fit`` as :class:`Schedule` says, at the end of epochs in a run that
    has no validation at all. A tag that was logged once keeps its last value for callbacks that follow it.

    Args:
        encoder, pool: see the kinds.
        probe, reference, images, labels: where data come from, as :class:`jepa_monitor.JEPAScoreMonitor` takes them.
        num_samples: of the probe.
        every_n_epochs: at least 1.
        on_error: ``warn`` goes on training when a measurement fails, with NaN for its values; ``raise`` does not.
        name: goes before all tags.

    Raises:
        ValueError: for settings that make no sense; :class:`SettingError`, before anything is trained or measured, for
            those that can never work, such as the path of a submodule that the module lacks.
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
        require_whole(1, **{"every_n_epochs": every_n_epochs, "the number of samples": num_samples})
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be warn or raise, got {on_error!r}.")
        check_pool(pool)
        self.encoder = encoder
        self.pool = pool
        self.sources = Sources(probe, reference, {}, None, images, labels, num_samples)
        self.on_error = on_error
        self.name = name
        self._schedule = Schedule(every_n_epochs)
        self._run = _Run(Notices(self._title))
        self.forget()

    @abstractmethod
    def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features; every process calls it, and the first one then computes values from them."""

    def expected_tags(self, pl_module: pl.LightningModule) -> tuple[str, ...]:
        """Tags of a measurement that did not come about, the same on all processes."""
        return self.usual_tags

    def forget(self) -> None:
        """Data are looked for anew."""
        self._probe: Part | None = None

    @property
    def state_key(self) -> str:
        """Tells callbacks of one kind apart in a checkpoint."""
        return f"{type(self).__name__}[{self.name}]" if self.name else type(self).__name__

    @property
    def every_n_epochs(self) -> int:
        """Epochs from one measurement to the next."""
        return self._schedule.every_n_epochs

    @property
    def values(self) -> dict[str, float]:
        """Last value of each tag."""
        return self._schedule.last

    # when

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Another call of the Trainer may come with another project."""
        self._run = _Run(Notices(self._title))
        self._schedule.begin(trainer)
        self.forget()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the settings before the first step, long before the first measurement."""
        self._require_possible(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the settings before ``validate``."""
        if not is_fitting(trainer):
            self._require_possible(trainer, pl_module)

    def _require_possible(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def try_out() -> None:
            resolve_encoders(pl_module, self.encoder, self.pool)
            check_probe(self.sources, trainer)

        require_possible(pl_module, try_out)
        warn_of_followers(trainer, self._prefix, self.usual_tags)

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
        if is_last_batch_of_validation(trainer) and self._schedule.takes_validation(trainer):
            self._measure(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log for callbacks that follow a tag; measure here if the last batch was not known."""
        if trainer.sanity_checking:
            return
        if self._schedule.takes_validation(trainer):
            self._measure(trainer, pl_module)
        self._schedule.end_validation()
        self._announce(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log for callbacks that follow a tag in an epoch without validation; measure in a run that has none."""
        if self._schedule.is_validated(trainer):
            return
        if not trainer.enable_validation and self._schedule.takes_epoch(trainer):
            self._measure(trainer, pl_module)
        self._announce(trainer, pl_module)

    def _announce(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        announce(trainer, pl_module, self._named(self._schedule.values_for(trainer)))

    def state_dict(self) -> dict[str, Any]:
        """The last values, which callbacks that follow a tag find after a resume."""
        return {"last": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._schedule.resume(state_dict["last"])

    # what

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._schedule.step_measured < 0 and (loader := which_loader(self.sources, trainer)):
            rank_zero_info(f"{self._title} {loader}")
        device, failure = pl_module.device, None
        lost: tuple[str, ...] = ()
        try:
            with undisturbed(pl_module):
                compute = self.observe(trainer, pl_module)
                # on one process alone: the others' processors, and their rounding, may be others
                with fail_together(device):
                    found = compute() if is_global_zero() else Found()
                found = broadcast(found)
        except Exception as error:  # whatever it was, training must not end by it
            if self.on_error == "raise":
                raise
            outcome = what_training_does(trainer, self._prefix, self.usual_tags, self.values)
            failure = f"could not measure, and {outcome}: {type(error).__name__}: {error}"
            found, lost = Found(), tuple(self.values) or self.expected_tags(pl_module)
        self._run.notices.tell_new("failure", [failure] if failure else [])
        self._run.notices.tell_new("meaning", found.reasons)
        self._schedule.record(trainer.global_step, found.values, lost=lost, failed=failure is not None)
        if is_fitting(trainer):
            self._write(trainer, device)

    def _write(self, trainer: pl.Trainer, device: torch.device) -> None:
        """Log the latest values; a logger that fails does not end training."""
        latest, step = self._schedule.latest, trainer.global_step
        is_introduced = latest.keys() <= self._run.introduced
        self._run.introduced |= latest.keys()
        failure = None
        try:
            with fail_together(device):
                if latest:
                    log_scalars(trainer, self._named(latest), step)
                if not is_introduced:
                    log_text(trainer, f"{self._prefix}{type(self).__name__}/tags", tags.explanation(latest), step)
        except Exception as error:
            if self.on_error == "raise":
                raise
            failure = f"could not write what it measured: {type(error).__name__}: {error}"
        self._run.notices.tell_new("writing", [failure] if failure else [])

    # of what

    def open_probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Part:
        """The probe's samples, as many as asked for."""
        if self._probe is not None:
            return self._probe
        with fail_together(pl_module.device):
            found = find_probe(self.sources, trainer)
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
        described = ", ".join(f"{name}: {description}" for name, (_, description) in encoders.items())
        if self._run.encoders_logged != described:
            rank_zero_info(f"{self._title} measures {described}.")
            self._run.encoders_logged = described
        return {name: of_batch(encode) for name, (encode, _) in encoders.items()}

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
