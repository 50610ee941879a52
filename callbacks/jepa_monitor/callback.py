"""The life of a callback: when it measures, isolation from training, failing together, logging. Written once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from .errors import SettingError
from .followers import missing_tags
from .history import current_name
from .probe.sources import Sources
from .runtime.distributed import broadcast, fail_together
from .runtime.isolation import isolated
from .runtime.loggers import Warnings, log_for_callbacks, log_scalars
from .runtime.pooling import Pool, check_pool
from .runtime.schedule import Moment, Schedule, is_last_batch_of_validation
from .tags import meaning_of

OnError = Literal["warn", "raise"]
T = TypeVar("T")


@dataclass
class Found:
    """Result of one measurement.

    Attributes:
        values: numbers by tag.
        reasons: sentences on values that are NaN, missing, or not to be trusted.
        lost: expected tags without a value.
        failure: reason why nothing was measured, or ``None``.
    """

    values: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    lost: tuple[str, ...] = ()
    failure: str | None = None


class MeasuringCallback(pl.Callback, ABC):
    """Measures the module at the end of validation and logs what it finds; each kind says in :meth:`observe` what.

    Training with and without it is the same, bit for bit. Every process takes part and all log the same values, so
    ``ModelCheckpoint(monitor=tag)`` works on any number of them. It measures in ``fit`` as :class:`Schedule` says, and
    in ``validate``. A tag that was logged once keeps its last value for callbacks that follow it.

    Args:
        pool: see :func:`pool_embedding`.
        sources: places where data come from.
        schedule: validations that are measured.
        on_error: ``warn`` continues training if a measurement fails, with NaN for its values; ``raise`` ends it.
        name: word before all tags, which keeps several callbacks of one kind apart.

    Raises:
        ValueError: for settings that make no sense; :class:`SettingError`, before anything is trained or measured, for
            those that can never work, such as the path of a submodule that the module lacks.
    """

    _on_bar: ClassVar[tuple[str, ...]] = ()  # tags that the progress bar shows
    _later_tags: ClassVar[frozenset[str]] = frozenset()  # tags that only later measurements have

    def __init__(self, *, pool: Pool, sources: Sources, schedule: Schedule, on_error: OnError, name: str) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be warn or raise, got {on_error!r}.")
        check_pool(pool)
        self.pool = pool
        self.sources = sources
        self.on_error = on_error
        self.name = name
        self._schedule = schedule
        self._forget()

    # hooks of subclasses

    @abstractmethod
    def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Found:
        """Measure the module, isolated from training. Every process calls it, and gets the same."""

    @abstractmethod
    def _try_settings(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise :class:`SettingError` for settings that can never work; any other failure may heal."""

    @abstractmethod
    def _expected_tags(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[str, ...]:
        """Tags of a measurement that did not come about, the same on all processes."""

    @abstractmethod
    def _describe(self, trainer: pl.Trainer, moment: Moment) -> None:
        """Log a page on the tags there are."""

    def _forget(self) -> None:
        """Drop what belongs to one call of the Trainer: data, and what was warned of and described.

        The constructor calls it too, before attributes of a subclass are there.
        """
        self._warnings = Warnings(self._title)
        self._failure: str | None = None
        self._described: set[str] = set()

    def _is_affordable(self, trainer: pl.Trainer) -> bool:
        """Return true where there is time for a measurement at this turn."""
        return True

    def _complete(self, trainer: pl.Trainer, pl_module: pl.LightningModule, moment: Moment, found: Found) -> None:
        """Add to what was found, before it is kept and logged. Every process calls it, after a failure too."""

    def _on_failure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, moment: Moment, text: str) -> None:
        """Record a failure that begins. Every process calls it."""

    def _on_recovery(self, moment: Moment) -> None:
        """Record the first measurement after a failure."""

    def _constants(self, trainer: pl.Trainer) -> Mapping[str, float]:
        """Values that never change, logged with those of each measurement."""
        return {}

    # names

    @property
    @abstractmethod
    def _tag_prefixes(self) -> tuple[str, ...]:
        """Beginnings of its tags, without the name."""

    @property
    def _kind(self) -> str:
        """Name of the kind in checkpoints and messages."""
        return type(self).__name__

    @property
    def state_key(self) -> str:
        """Name of the callback in a checkpoint, another for each of several of one kind."""
        return f"{self._kind}[{self.name}]" if self.name else self._kind

    @property
    def _title(self) -> str:
        """Beginning of its messages."""
        return f"{self._kind} {self.name}".strip()

    @property
    def _prefix(self) -> str:
        """Beginning of its tags."""
        return f"{self.name}/" if self.name else ""

    def _named(self, values: Mapping[str, T]) -> dict[str, T]:
        """Put the prefix before each tag."""
        return {self._prefix + tag: value for tag, value in values.items()}

    @property
    def every_n_epochs(self) -> int:
        """Epochs from one measurement to the next; 0 for no epoch."""
        return self._schedule.every_n_epochs

    @property
    def values(self) -> dict[str, float]:
        """Last value of each tag."""
        return self._schedule.last

    @property
    def step_measured(self) -> int:
        """Optimizer step of the last measurement in this call of the Trainer; -1 before."""
        return self._schedule.step_measured

    # hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the last call of the Trainer: this one may come with another project."""
        self._forget()
        self._schedule.begin(trainer.global_step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the settings before the first step, long before the first measurement."""
        self._require_possible(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the settings before ``validate``."""
        if not Moment.of(trainer).is_fitting:
            self._require_possible(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure after the last batch.

        Weight averaging puts the averaged weights in for the epoch of validation, and takes them out in the hook at its
        end, before or after ours. Here they are in whatever the order of the callbacks.
        """
        if is_last_batch_of_validation(trainer):
            self._measure_validation(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log for callbacks that follow a tag; measure here if the last batch was not known."""
        if trainer.sanity_checking:
            return
        self._measure_validation(trainer, pl_module)
        self._schedule.end_validation()
        self._log_for_callbacks(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and log for callbacks that follow a tag, in an epoch without validation."""
        moment = Moment.of(trainer)
        if self._schedule.is_validated(moment):
            return
        if self._schedule.takes_epoch(moment):
            self._measure_if_affordable(trainer, pl_module)
        self._log_for_callbacks(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the last values, which callbacks that follow a tag find after a resume."""
        return {"last": self.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._schedule.resume({current_name(tag): value for tag, value in state_dict["last"].items()})

    # before, during and after a measurement

    def _require_possible(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the settings, isolated from training. Every process calls it.

        Raises:
            SettingError: on every process, for settings that can never work.
        """
        problem = None
        try:
            with isolated(pl_module):
                self._try_settings(trainer, pl_module)
        except SettingError as error:
            problem = str(error)
        except Exception:
            pass  # it may heal until there is a measurement
        problem = broadcast(problem)
        if problem is not None:
            raise SettingError(problem)
        self._warn_of_wrong_modes(trainer)

    def _measure_validation(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._schedule.takes_validation(Moment.of(trainer)):
            self._measure_if_affordable(trainer, pl_module)

    def _measure_if_affordable(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure where there is time, or where callbacks that follow a tag find no value yet."""
        if self._is_affordable(trainer) or self._schedule.lacks_values:
            self.measure(trainer, pl_module)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, keep the values and log them. Every process calls it."""
        moment, found = Moment.of(trainer), self._observe_isolated(trainer, pl_module)
        failed = found.failure is not None
        if not failed:
            self._warnings.warn_new("meaning", found.reasons)
        self._complete(trainer, pl_module, moment, found)
        self._warn_of_failure(trainer, pl_module, moment, found.failure)
        if failed:
            found.lost = tuple(self.values) or self._expected_tags(trainer, pl_module)
        self._schedule.record(moment.step, found.values, lost=found.lost, failed=failed)
        if moment.is_fitting and not failed:
            known = self.values.keys() | self._later_tags
            self._warnings.warn_new("followers", missing_tags(self._followers(trainer), known, self._prefix))
        latest = self._schedule.latest
        if moment.is_fitting and latest:
            with self._guarded(pl_module, "scalars"):
                log_scalars(trainer, {**self._named(latest), **self._constants(trainer)}, moment.step)
        if latest.keys() - self._described:
            self._described |= self.values.keys() | self._later_tags
            with self._guarded(pl_module, "description"):
                self._describe(trainer, moment)

    def _observe_isolated(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Found:
        try:
            with isolated(pl_module):
                return self.observe(trainer, pl_module)
        except Exception as error:  # whatever it was, training must not end by it
            if self.on_error == "raise":
                raise
            return Found(failure=f"{type(error).__name__}: {error}")

    def _log_for_callbacks(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, on_step: bool = False) -> None:
        """Log the values that callbacks which follow a tag find now."""
        values = self._named(self._schedule.values_for(Moment.of(trainer)))
        on_bar = [self._prefix + tag for tag in self._on_bar]
        with self._guarded(pl_module, "callbacks"):
            log_for_callbacks(trainer, pl_module, values, on_step=on_step, on_bar=on_bar)

    @contextmanager
    def _guarded(self, pl_module: pl.LightningModule, topic: str) -> Generator[None, None, None]:
        """Run a block that each process does by itself; if it fails on one, all warn, or raise by ``on_error``."""
        reasons = []
        try:
            with fail_together(pl_module.device):
                yield
        except Exception as error:
            if self.on_error == "raise":
                raise
            reasons = [f"could not write what it measured: {type(error).__name__}: {error}"]
        self._warnings.warn_new(topic, reasons)

    def _warn_of_failure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, moment: Moment, failure: str | None
    ) -> None:
        """Warn of a failure, once for each reason."""
        if failure is not None and failure != self._failure:
            outcome = self._what_training_does(trainer) if moment.is_fitting else "training goes on"
            text = f"could not measure at step {moment.step}, and {outcome}: {failure}"
            self._warnings.warn([text])
            self._on_failure(trainer, pl_module, moment, text)
        elif failure is None and self._failure is not None:
            self._on_recovery(moment)
        self._failure = failure

    def _followers(self, trainer: pl.Trainer) -> Iterator[tuple[Any, str]]:
        """Callbacks that follow one of our tags, each with that tag."""
        owned = tuple(self._prefix + beginning for beginning in self._tag_prefixes)
        for callback in getattr(trainer, "callbacks", []):
            tag = getattr(callback, "monitor", None)
            if isinstance(tag, str) and tag.startswith(owned):
                yield callback, tag

    def _warn_of_wrong_modes(self, trainer: pl.Trainer) -> None:
        """Warn of callbacks that follow a tag the wrong way: Lightning's default is ``mode="min"``."""
        for follower, tag in self._followers(trainer):
            row = meaning_of(tag.removeprefix(self._prefix))
            better = row.better if row else "-"
            wanted = {"higher": "max", "lower": "min"}.get(better)
            if wanted is not None and (mode := getattr(follower, "mode", None)) != wanted:
                rank_zero_warn(
                    f"{type(follower).__name__} follows {tag} with mode={mode!r}, which prefers its worst value: "
                    f"{better} is better, so pass mode={wanted!r}."
                )

    def _what_training_does(self, trainer: pl.Trainer) -> str:
        """Say what happens to training after a measurement that failed: callbacks that check a tag stop at NaN."""
        for follower, tag in self._followers(trainer):
            last = self.values.get(tag.removeprefix(self._prefix), math.nan)
            if getattr(follower, "check_finite", False) and math.isnan(last):
                name = type(follower).__name__
                return f"training goes on unless {name} stops at the NaN of {tag} (check_finite=False prevents it)"
        return "training goes on"
