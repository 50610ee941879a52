"""The rule by which validations are measured and tags keep their values, the same for all callbacks here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn


@dataclass(frozen=True)
class Moment:
    """Position of a run at one of its hooks, read from the Trainer once.

    Attributes:
        step: optimizer steps that are done.
        epoch: epoch under way, from 0.
        is_fitting: true in ``fit``, false in ``validate`` and ``test``.
        is_sanity_check: true in the validation before ``fit`` that only tries the code.
        has_validation: true where the run validates at some time.
    """

    step: int
    epoch: int
    is_fitting: bool
    is_sanity_check: bool = False
    has_validation: bool = True

    @classmethod
    def of(cls, trainer: pl.Trainer) -> Moment:
        """Read the Trainer."""
        return cls(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            is_fitting=trainer.state.fn == TrainerFn.FITTING,
            is_sanity_check=trainer.sanity_checking,
            has_validation=trainer.enable_validation,
        )


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
        needs_validation: leave out epochs without validation in a run that validates others.
        last: last value of each tag of the run; NaN where there never was one.
        latest: values of the last measurement alone; NaN for those that it should have had.
        step_measured: optimizer step of the last measurement in this call of the Trainer; -1 before.
    """

    every_n_epochs: int
    measures_first: bool = True
    needs_validation: bool = False
    last: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    step_measured: int = -1
    _has_values: bool = False  # of this fit, or of the one that it resumes
    _epoch_validated: int = -1
    _was_asked: bool = False  # in the validation under way

    def begin(self, step: int) -> None:
        """Start a call of the Trainer at an optimizer step; a run that begins at step 0 knows no values."""
        self.latest, self.step_measured = {}, -1
        self._has_values, self._epoch_validated, self._was_asked = False, -1, False
        if step == 0:
            self.last = {}

    def resume(self, last: Mapping[str, float]) -> None:
        """Go on with the values of a checkpoint."""
        self.last = dict(last)
        self._has_values = any(math.isfinite(value) for value in last.values())

    def takes_validation(self, moment: Moment) -> bool:
        """Decide whether to measure in the validation under way: true at most once, until :meth:`end_validation`."""
        if moment.is_sanity_check or self._was_asked:
            return False
        self._was_asked = True
        if not moment.is_fitting:
            return True
        self._epoch_validated = moment.epoch
        return self._is_new(moment) and (self._is_in_turn(moment) or self.lacks_values)

    def end_validation(self) -> None:
        """Let the next validation be asked about."""
        self._was_asked = False

    def is_validated(self, moment: Moment) -> bool:
        """Return true where there was a validation in the epoch under way."""
        return self._epoch_validated == moment.epoch

    def takes_epoch(self, moment: Moment) -> bool:
        """Decide whether to measure at the end of an epoch that had no validation."""
        if self.needs_validation and moment.has_validation:
            return False
        is_first = self.lacks_values and not moment.has_validation
        return self._is_new(moment) and (self._is_in_turn(moment) or is_first)

    def record(self, step: int, values: Mapping[str, float], *, lost: Iterable[str] = (), failed: bool = False) -> None:
        """Keep what was measured.

        Args:
            step: optimizer step of the measurement.
            values: numbers by tag.
            lost: tags that the measurement should have had and could not find.
            failed: nothing was found, so that the next validation is tried whatever its epoch.
        """
        nothing = dict.fromkeys(lost, math.nan)
        self.step_measured = step
        self._has_values = self._has_values or not failed
        self.latest = nothing | dict(values)
        self.last = nothing | self.last | dict(values)

    def values_for(self, moment: Moment) -> dict[str, float]:
        """Values that callbacks find now: the last of each tag in ``fit``, else what was just measured."""
        return self.last if moment.is_fitting else self.latest

    @property
    def lacks_values(self) -> bool:
        """True where callbacks that follow a tag find no value of this fit, or of the one that it resumes."""
        return self.measures_first and not self._has_values

    def _is_in_turn(self, moment: Moment) -> bool:
        return self.every_n_epochs > 0 and (moment.epoch + 1) % self.every_n_epochs == 0

    def _is_new(self, moment: Moment) -> bool:
        return moment.step != self.step_measured


def is_last_batch_of_validation(trainer: pl.Trainer) -> bool:
    """Return true after the last batch of a validation; false where the number of batches is unknown."""
    is_fitting = trainer.state.fn == TrainerFn.FITTING
    loop = trainer.fit_loop.epoch_loop.val_loop if is_fitting else trainer.validate_loop
    return bool(loop.batch_progress.is_last_batch)
