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
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .distributed import broadcast
from .horizon import Horizon

Estimator = Literal["auto", "exact", "sketch"]

GRACE_SECONDS = 2.0  # what a run may always spend: a share of a short one would be nothing
UNKNOWN_SECONDS = 5.0  # a measurement of a run whose length is unknown
ROOM_FOR = 2  # measurements at least: before training and at the end
PICTURE_SECONDS = 0.4  # before any was drawn
FEWEST_SAMPLES = 16
FEWEST_RANKED = 64  # with fewer, a rank correlation is mostly chance
FEWEST_EXACT = 256  # below it, a sketch on more samples says more than exact values
CALIBRATION_SAMPLES = 48  # exact ones behind a sketch
SMALLEST_SKETCHED = 64  # K from which a sketch is chosen: below it, its rows are too few to rank by
LARGEST_SKETCH = 16
TOLERANCE = 1.5  # all samples are taken at so much more than they should cost: runs that can be compared are worth it
FORWARD_PASSES_OF_A_STEP = 4.0  # at least: the teacher's, the student's, and a backward pass of about two


@dataclass(frozen=True)
class Plan:
    """The work of every measurement of a run.

    Attributes:
        samples: first samples of each set that get a Jacobian; embeddings are taken of all.
        sketch: Jacobians are sketched, not exact.
    """

    samples: int
    sketch: bool = False

    def __str__(self) -> str:
        return f"{'sketched' if self.sketch else 'exact'} Jacobians of {self.samples} samples"


@dataclass(frozen=True)
class Trial:
    """Seconds that a trial of the encoder took, and the size of its embedding.

    Attributes:
        per_jacobian: seconds of one more sample, with an exact Jacobian in each set.
        per_forward: seconds of one more sample's embedding, on one process, as training computes it.
        embeddings: seconds of the embeddings of all samples.
        embedding_size: K.
    """

    per_jacobian: float
    per_forward: float
    embeddings: float
    embedding_size: int


class Budget:
    """Times training and measurements, decides what a measurement does, and whether there is time for one.

    Every process calls the same methods in the same order; the first one's clock decides for all.

    Args:
        share: of the training time that measurements may take; ``None`` sets no limit.
        estimator: ``auto`` chooses between exact and sketched Jacobians.
        clock: seconds since any moment.

    Attributes:
        text: why the plan is as it is, one sentence.
    """

    def __init__(
        self, share: float | None, estimator: Estimator = "auto", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.share = share
        self.estimator = estimator
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

    def plan(self, num_samples: int, *, horizon: Horizon, trial: Callable[[], Trial]) -> Plan:
        """Decide at the first call, from a trial and the run's length, and keep to it.

        Args:
            num_samples: of the probe, at most so many.
            horizon: where the run stands.
            trial: times the encoder; every process calls it.
        """
        if self._decided is None:
            self._decided, self.text = broadcast(self._decide(num_samples, horizon, trial()))
        return self._decided

    @property
    def decided(self) -> Plan | None:
        """The plan of the run, once it is decided."""
        return self._decided

    def _decide(self, num_samples: int, horizon: Horizon, trial: Trial) -> tuple[Plan, str]:
        guess = None if horizon.samples_a_step is None else horizon.samples_a_step * trial.per_forward
        expected = self._expected_seconds(horizon, None if guess is None else FORWARD_PASSES_OF_A_STEP * guess)
        if expected is None:
            each = UNKNOWN_SECONDS
            why = f"the length of the run is unknown, so each measurement may take about {each:.0f} s"
        else:
            allowed = self._allowance(expected)
            each = (allowed - self._picture_seconds) / ROOM_FOR
            why = f"about {allowed:.1f} s of measurements go with about {expected:.0f} s of training"
        plan = choose_plan(
            each - trial.embeddings,
            seconds_per_sample=trial.per_jacobian,
            num_samples=num_samples,
            embedding_size=trial.embedding_size,
            estimator=self.estimator,
        )
        if plan.samples < min(FEWEST_RANKED, num_samples):
            why += "; so few rank mostly by chance: raise budget or give num_samples"
        return plan, f"takes {plan}, the same for the whole run: {why}."

    # how often

    def allows_measurement(self, horizon: Horizon) -> bool:
        """Tell whether there is time for a measurement at this turn; a run's first and last are always made.

        The others are spread evenly over what is left of the run. Where its length is unknown, they are made when the
        training so far pays for them. A first one that failed is made again at the next turn.
        """
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
        """Tell whether training so far pays for pictures now, and for the last measurement and its pictures."""
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
            horizon: where the run stands.
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
        self._decided = None if state["plan"] is None else Plan(**state["plan"])
        self._trained, self._steps, self._spent = state["trained"], state["steps"], state["spent"]
        self._attempts, self._succeeded = state["attempts"], state["succeeded"]
        self._measurement_seconds = state["measurement_seconds"]
        self._picture_seconds, self._step_of_measurement = state["picture_seconds"], state["step_of_measurement"]


def choose_plan(
    seconds: float,
    *,
    seconds_per_sample: float,
    num_samples: int,
    embedding_size: int,
    estimator: Estimator = "auto",
) -> Plan:
    """The most samples that fit: all of them exactly, or fewer, or sketches of more.

    Args:
        seconds: for Jacobians.
        seconds_per_sample: of an exact Jacobian, over all sets.
        num_samples: at most so many.
        embedding_size: K.
        estimator: ``auto`` chooses.

    Returns:
        A plan with at least 16 samples (or all there are), whatever they cost.
    """
    affordable = seconds / max(seconds_per_sample, 1e-9)
    exact = Plan(_rounded(affordable, num_samples))
    if estimator == "exact" or not can_sketch(num_samples, embedding_size):
        return exact
    # a sketch has its own rows for each of the two scores
    in_sketches = (affordable - CALIBRATION_SAMPLES) * embedding_size / (2 * sketch_rows(embedding_size))
    sketched = Plan(max(_rounded(in_sketches, num_samples), min(FEWEST_RANKED, num_samples)), sketch=True)
    if estimator == "sketch":
        return sketched
    says_more = embedding_size >= SMALLEST_SKETCHED and in_sketches >= max(2 * exact.samples, FEWEST_RANKED)
    return sketched if exact.samples < min(FEWEST_EXACT, num_samples) and says_more else exact


def can_sketch(samples: int, embedding_size: int) -> bool:
    """Tell whether there are more samples than calibrate a sketch, and more directions than it has rows."""
    return samples > CALIBRATION_SAMPLES and sketch_rows(embedding_size) < embedding_size


def sketch_rows(embedding_size: int) -> int:
    """m: an eighth of K, from 2 to 16."""
    return max(2, min(LARGEST_SKETCH, embedding_size // 8))


def _rounded(samples: float, most: int) -> int:
    """All samples, or whole steps of half an octave, so that small differences of speed make none."""
    fewest = min(FEWEST_SAMPLES, most)
    if TOLERANCE * samples >= most or samples <= fewest:
        return most if TOLERANCE * samples >= most else fewest
    steps = math.floor(2.0 * math.log2(samples / fewest) + 1e-9)
    return int(fewest * 2.0 ** (steps / 2.0) + 1e-6)
