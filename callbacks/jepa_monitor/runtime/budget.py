"""The budget of a run: a clock for measurements, and the decisions what they do and how often they are made.

A run may spend a share of the seconds that it trains, and two seconds in any case. Values of other samples are other
values, so samples and strategy are decided once, at the first measurement, and stay for the whole run, resumed or not.
Where time is short, measurements are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from ..probe.samples import first_loader
from .distributed import broadcast
from .plan import FEWEST_RANKED, REFERENCE_A_SAMPLE, Estimator, Plan, Trial, choose_plan, choose_reference

GRACE_SECONDS = 2.0  # what a run may always spend: a share of a short one would be nothing
UNKNOWN_SECONDS = 5.0  # a measurement of a run whose length is unknown
ROOM_FOR = 2  # measurements at least: before training and at the end
LEAST_SHARE_OF_JACOBIANS = 0.25  # of the time of a measurement, unless the rest of it takes less
PICTURE_SECONDS = 1.0  # before any was drawn
FORWARD_PASSES_OF_A_STEP = 4.0  # at least: the teacher's, the student's, and a backward pass of about two


@dataclass(frozen=True)
class Horizon:
    """Position and length of a run, as far as its Trainer knows them.

    Attributes:
        step: optimizer steps that are done.
        steps_left: optimizer steps until ``max_epochs`` or ``max_steps``; ``None`` where that is unknown.
        seconds_left: seconds until ``max_time``, measurements included; ``None`` without one.
        samples_a_step: samples that a process trains on in an optimizer step; ``None`` where that is unknown.
    """

    step: int
    steps_left: float | None = None
    seconds_left: float | None = None
    samples_a_step: int | None = None


def horizon_of(trainer: pl.Trainer) -> Horizon | None:
    """Read the position of a run from its Trainer; ``None`` outside ``fit``, where nothing is limited."""
    if trainer.state.fn != TrainerFn.FITTING:
        return None
    total, step = _total_steps(trainer), trainer.global_step
    return Horizon(
        step=step,
        steps_left=None if total is None else max(0.0, total - step),
        seconds_left=_seconds_left(trainer),
        samples_a_step=_samples_a_step(trainer),
    )


def _total_steps(trainer: pl.Trainer) -> float | None:
    try:
        total = float(trainer.estimated_stepping_batches)
    except Exception:  # with a schedule of accumulation; the class depends on which package the Trainer is from
        return None
    return total if math.isfinite(total) and total > 0 else None


def _seconds_left(trainer: pl.Trainer) -> float | None:
    """Ask Lightning's Timer, which is what ``max_time`` becomes."""
    callbacks = getattr(trainer, "callbacks", [])
    timers = [callback for callback in callbacks if any(base.__name__ == "Timer" for base in type(callback).__mro__)]
    known = [left for timer in timers if (left := timer.time_remaining()) is not None]
    return max(0.0, min(known)) if known else None


def _samples_a_step(trainer: pl.Trainer) -> int | None:
    loader = first_loader(trainer.train_dataloader)
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size * trainer.accumulate_grad_batches if isinstance(size, int) else None


class Budget:
    """Times training and measurements, decides what a measurement does, and whether there is time for one.

    Every process calls the same methods in the same order; the first one's clock decides for all.

    Args:
        share: share of the training time that measurements may take; ``None`` sets no limit.
        estimator: ``exact``, ``subspace``, or ``auto``, which chooses.
        takes_all: measure all samples whatever they cost, as their number was given.
        clock: seconds since any moment.

    Attributes:
        text: why the plan is as it is, one sentence.
    """

    def __init__(
        self,
        share: float | None,
        estimator: Estimator = "auto",
        *,
        takes_all: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.share = share
        self.estimator = estimator
        self.takes_all = takes_all
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin a new run: nothing is decided, nothing spent."""
        self.text = ""
        self._decided: Plan | None = None
        self._trained = 0.0  # seconds until the last `start`
        self._steps = 0  # optimizer steps that were timed until then
        self._spent = 0.0
        self._attempts = 0
        self._succeeded = False
        self._measurement_seconds = 0.0
        self._picture_seconds = PICTURE_SECONDS
        self._step_of_measurement = 0
        self._step_of_turn = 0
        self._started: float | None = None
        self._spent_before = 0.0
        self._first_step = 0
        self._measuring_since: float | None = None

    # the clock

    def start(self, step: int) -> None:
        """Start the clock of a fit that begins at this optimizer step."""
        self._started, self._first_step, self._step_of_turn = self._clock(), step, step
        self._spent_before = self._spent

    def stop(self, step: int) -> None:
        """Stop the clock, if it runs; the next fit goes on from here."""
        if self._started is not None:
            self._trained, self._steps, self._started = self.trained, self._steps_timed(step), None

    @contextmanager
    def measuring(self) -> Generator[None, None, None]:
        """Count the seconds inside as measurement, not as training, while the clock of a fit runs."""
        if self._started is None:
            yield
            return
        self._measuring_since = self._clock()
        try:
            yield
        finally:
            self._spent, self._measuring_since = self.spent, None

    @property
    def spent(self) -> float:
        """Seconds of measurements and pictures in this run."""
        return self._spent + (0.0 if self._measuring_since is None else self._clock() - self._measuring_since)

    @property
    def trained(self) -> float:
        """Seconds of this run that were not measurement."""
        if self._started is None:
            return self._trained
        return self._trained + self._clock() - self._started - (self.spent - self._spent_before)

    def overhead_percent(self, step: int) -> float:
        """Seconds measured over seconds trained, in percent; NaN before the first step."""
        return broadcast(100.0 * self.spent / self.trained if self._steps_timed(step) else math.nan)

    # what a measurement does

    def plan(self, num_samples: int, *, horizon: Horizon | None, trial: Callable[[], Trial]) -> Plan:
        """Decide at the first call, from a trial and the run's length, and keep to it; outside ``fit`` take all.

        Args:
            num_samples: samples of the probe.
            horizon: position of the run; ``None`` outside ``fit``.
            trial: times the encoder; every process calls it.
        """
        everything = Plan(num_samples, self.estimator == "subspace", REFERENCE_A_SAMPLE * num_samples)
        if self.takes_all:
            if horizon is not None and self.share is not None:
                within = f"only within {100.0 * self.share:.3g} % of the training time or {GRACE_SECONDS:g} s"
                self.text = f"measures all of them, as their number was given: twice a run, and more often {within}."
            return everything
        if self._decided is None:
            if horizon is None or self.share is None:
                return everything
            self._decided, self.text = broadcast(self._decide(num_samples, horizon, trial(), self.share))
        return self._decided

    def _decide(self, num_samples: int, horizon: Horizon, trial: Trial, share: float) -> tuple[Plan, str]:
        guess = None if horizon.samples_a_step is None else horizon.samples_a_step * trial.per_forward
        expected = self._expected_seconds(horizon, None if guess is None else FORWARD_PASSES_OF_A_STEP * guess)
        if expected is None:
            each = UNKNOWN_SECONDS
            why = f"the length of the run is unknown, so each measurement may take about {each:.0f} s"
        else:
            allowed = self._allowance(expected)
            each = (allowed - self._picture_seconds) / ROOM_FOR
            why = f"measuring may take {100.0 * share:.3g} % of the training time, at least {GRACE_SECONDS:g} s"
        reference = choose_reference(each, trial)
        besides = trial.besides(reference)
        plan = choose_plan(
            # samples that are saved where the rest takes most of the time save little, and ruin the ranking
            max(each - besides, min(besides, LEAST_SHARE_OF_JACOBIANS * each)),
            seconds_per_sample=trial.per_jacobian,
            num_samples=num_samples,
            embedding_size=trial.embedding_size,
            rank=trial.rank,
            estimator=self.estimator,
            sets=trial.sets,
        )
        if plan.samples < min(FEWEST_RANKED, num_samples):
            why += "; so few samples give a ranking by chance: raise budget or give num_samples"
        plan = replace(plan, reference=reference)
        return plan, f"uses {plan} at each measurement: {why}."

    # how often

    def allows_measurement(self, horizon: Horizon | None) -> bool:
        """Decide whether there is time for a measurement at this turn; a run's first and last are always made.

        The others are spread evenly over what is left of the run. Where its length is unknown, they are made when the
        training so far pays for them. A first one that failed is made again at the next turn. Outside ``fit`` there is
        always time.
        """
        if horizon is None:
            return True
        spacing, self._step_of_turn = horizon.step - self._step_of_turn, horizon.step
        if self.share is None or self._attempts < (1 if self._succeeded else 2):
            return True
        return broadcast(self._is_affordable(horizon, spacing))

    def record_measurement(self, step: int, seconds: float, *, failed: bool = False) -> None:
        """Remember when the last measurement was made and what another will take, without pictures."""
        self._attempts += 1
        self._succeeded |= not failed
        self._step_of_measurement, self._measurement_seconds = step, seconds

    def _is_affordable(self, horizon: Horizon, spacing: int) -> bool:
        expected, trained = self._expected_seconds(horizon), self.trained
        if expected is None:
            return self.spent + self._measurement_seconds + self._picture_seconds <= self._allowance(trained)
        steps_left = (expected - trained) / max(trained, 1e-9) * self._steps_timed(horizon.step)
        if steps_left < 0.75 * spacing:  # the next turn would come after the end
            return True
        left = self._allowance(expected) - self.spent - self._picture_seconds
        affordable = math.floor(left / max(self._measurement_seconds, 1e-9))
        since = horizon.step - self._step_of_measurement
        # one of them is the last; half a turn, because the nearest turn is meant
        return affordable >= 2 and since + 0.5 * spacing >= (since + steps_left) / affordable

    # pictures

    def allows_pictures(self) -> bool:
        """Decide whether training so far pays for pictures now, and for the last measurement and its pictures."""
        if self.share is None:
            return True
        cost = self.spent + 2.0 * self._picture_seconds + self._measurement_seconds
        return broadcast(cost <= self._allowance(self.trained))

    def record_pictures(self, seconds: float) -> None:
        """Remember what the last pictures took."""
        self._picture_seconds = seconds

    # seconds

    def _allowance(self, trained: float) -> float:
        return max(GRACE_SECONDS, math.inf if self.share is None else self.share * trained)

    def _steps_timed(self, step: int) -> int:
        return self._steps + (0 if self._started is None else step - self._first_step)

    def _expected_seconds(self, horizon: Horizon, guess: float | None = None) -> float | None:
        """Seconds that the run will have trained at its end; ``None`` where that is unknown.

        Args:
            horizon: position of the run.
            guess: seconds of an optimizer step, before one was timed.
        """
        trained, steps = self.trained, self._steps_timed(horizon.step)
        pace = trained / steps if steps else guess
        ends = [] if horizon.seconds_left is None else [trained + horizon.seconds_left]
        if horizon.steps_left is not None and pace is not None:
            ends.append(trained + horizon.steps_left * pace)
        return min(ends, default=None)

    # checkpoints

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return plain numbers, with which a resumed run goes on."""
        return {
            "plan": None if self._decided is None else asdict(self._decided),
            "trained": self.trained,
            "steps": self._steps_timed(step),
            "spent": self.spent,
            "attempts": self._attempts,
            "succeeded": self._succeeded,
            "measurement_seconds": self._measurement_seconds,
            "picture_seconds": self._picture_seconds,
            "step_of_measurement": self._step_of_measurement,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.forget()
        self._decided = None if state["plan"] is None else Plan.restore(state["plan"])
        self._trained, self._steps, self._spent = state["trained"], state["steps"], state["spent"]
        self._attempts, self._succeeded = state["attempts"], state["succeeded"]
        self._measurement_seconds = state["measurement_seconds"]
        self._picture_seconds, self._step_of_measurement = state["picture_seconds"], state["step_of_measurement"]
