"""The rule by which validations are measured and tags keep their values, the same for all callbacks here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn


@dataclass
class Schedule:
    """Decides which validations are measured, and keeps the last value of each tag.

    The first validation of a ``fit`` that can be measured is measured, and then those of each n-th epoch. A run that
    resumes with the values of its checkpoint goes on as if it had not stopped. A tag that was logged once keeps its
    last value where it is not measured, or cannot be: ``ModelCheckpoint`` and ``EarlyStopping`` raise where a tag is
    missing, and the latter stops at NaN.

    Attributes:
        every_n_epochs: n; 0 for the first validation alone.
        measures_first: false where nothing at all is to be measured at validation.
        last: last value of each tag of the run; NaN where there never was one.
        latest: values of the last measurement alone; NaN for those that it should have had.
        step_measured: optimizer step of the last measurement in this call of the Trainer; -1 before.
    """

    every_n_epochs: int
    measures_first: bool = True
    last: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    step_measured: int = -1
    _has_values: bool = False  # of this fit, or of the one that it resumes
    _epoch_validated: int = -1
    _was_asked: bool = False  # in the validation under way

    def begin(self, trainer: pl.Trainer) -> None:
        """Start a call of the Trainer; a run that begins at step 0 knows no values."""
        self.latest, self.step_measured = {}, -1
        self._has_values, self._epoch_validated, self._was_asked = False, -1, False
        if trainer.global_step == 0:
            self.last = {}

    def resume(self, last: Mapping[str, float]) -> None:
        """Go on with the values of a checkpoint."""
        self.last = dict(last)
        self._has_values = any(math.isfinite(value) for value in last.values())

    def takes_validation(self, trainer: pl.Trainer) -> bool:
        """Decide whether to measure in the validation under way: true at most once, until :meth:`end_validation`."""
        if trainer.sanity_checking or self._was_asked:
            return False
        self._was_asked = True
        if not is_fitting(trainer):
            return True
        self._epoch_validated = trainer.current_epoch
        return self._is_new(trainer) and (self._is_in_turn(trainer) or self.lacks_values)

    def end_validation(self) -> None:
        """Let the next validation be asked about."""
        self._was_asked = False

    def is_validated(self, trainer: pl.Trainer) -> bool:
        """Tell whether there was a validation in the epoch under way."""
        return self._epoch_validated == trainer.current_epoch

    def takes_epoch(self, trainer: pl.Trainer) -> bool:
        """Decide whether to measure at the end of an epoch that had no validation."""
        is_first = self.lacks_values and not trainer.enable_validation
        return self._is_new(trainer) and (self._is_in_turn(trainer) or is_first)

    def record(self, step: int, values: Mapping[str, float], *, lost: Iterable[str] = (), failed: bool = False) -> None:
        """Keep what was measured.

        Args:
            step: optimizer step of the measurement.
            values: by tag.
            lost: tags that the measurement should have had and could not find.
            failed: nothing was found, so that the next validation is tried whatever its epoch.
        """
        nothing = dict.fromkeys(lost, math.nan)
        self.step_measured = step
        self._has_values = self._has_values or not failed
        self.latest = nothing | dict(values)
        self.last = nothing | self.last | dict(values)

    def values_for(self, trainer: pl.Trainer) -> dict[str, float]:
        """Values that callbacks find now: the last of each tag in ``fit``, else what was just measured."""
        return self.last if is_fitting(trainer) else self.latest

    @property
    def lacks_values(self) -> bool:
        """Tell whether callbacks that follow a tag find no value of this fit, or of the one that it resumes."""
        return self.measures_first and not self._has_values

    def _is_in_turn(self, trainer: pl.Trainer) -> bool:
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _is_new(self, trainer: pl.Trainer) -> bool:
        return trainer.global_step != self.step_measured


def is_fitting(trainer: pl.Trainer) -> bool:
    """Tell ``fit`` from ``validate`` and ``test``."""
    return trainer.state.fn == TrainerFn.FITTING


def is_last_batch_of_validation(trainer: pl.Trainer) -> bool:
    """Tell whether a batch of validation was the last; false where the number of batches is unknown."""
    loop = trainer.fit_loop.epoch_loop.val_loop if is_fitting(trainer) else trainer.validate_loop
    return bool(loop.batch_progress.is_last_batch)
