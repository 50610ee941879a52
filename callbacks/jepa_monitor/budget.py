"""How much of a measurement fits into a share of the training time. Pure functions of seconds.

Training is paid for by what has been trained: with ``trained`` seconds behind it and a share of ``progress`` of the run
done, a run will train for about ``trained / progress`` seconds, and ``budget`` times that may go into measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Estimator = Literal["auto", "exact", "sketch"]

GRACE_SECONDS = 2.0  # what a run may always spend: a budget of a short one would be nothing
FIRST_SECONDS = 5.0  # what the measurement before training may take, when nothing is known of its speed
FEWEST_SAMPLES = 64  # with fewer, a rank correlation is mostly chance
FEWEST_EXACT = 256  # below it, a sketch on more samples says more than exact values
CALIBRATION_SAMPLES = 48  # exact ones behind a sketch
LARGEST_SKETCH = 16


@dataclass(frozen=True)
class Plan:
    """What a measurement does.

    Attributes:
        samples: of each set that get a Jacobian; embeddings are taken of all.
        rows: of a sketch; ``None`` means exact.
    """

    samples: int
    rows: int | None = None

    def __str__(self) -> str:
        how = "exact Jacobians" if self.rows is None else f"sketches of {self.rows} rows"
        return f"{how} of {self.samples} samples"


@dataclass(frozen=True)
class Clock:
    """Where a run stands.

    Attributes:
        trained: seconds, measurements not counted.
        spent: seconds measured so far.
        progress: share of the run that is done, 0 to 1; ``None`` where its length is unknown.
        interval: progress since the measurement before.
    """

    trained: float
    spent: float
    progress: float | None
    interval: float = 1.0


def overhead_percent(clock: Clock) -> float:
    """Seconds measured over seconds trained, in percent; infinite before training."""
    return 100.0 * clock.spent / clock.trained if clock.trained > 0.0 else float("inf")


def allowed_seconds(clock: Clock, budget: float, *, reserve: float = 0.0) -> float:
    """Seconds that the next measurement may take.

    What is left of the whole run's allowance is shared by the measurements to come. Where the run's length is unknown,
    what has been earned so far may be spent.

    Args:
        clock: where the run stands.
        budget: share of the training time.
        reserve: seconds that are needed at the end, for the last pictures.
    """
    if clock.trained <= 0.0:
        return FIRST_SECONDS - clock.spent
    if not clock.progress:
        return max(GRACE_SECONDS, budget * clock.trained) - clock.spent - reserve
    whole = max(GRACE_SECONDS, budget * clock.trained / clock.progress) - reserve
    measurements_left = 1.0 + max(0.0, 1.0 - clock.progress) / max(clock.interval, 1e-6)
    return (whole - clock.spent) / measurements_left


def may_paint(clock: Clock, budget: float, seconds: float) -> bool:
    """Are pictures of that many seconds, and once more at the end, covered by what has been trained so far?"""
    return clock.spent + 2.0 * seconds <= max(GRACE_SECONDS, budget * clock.trained)


def choose_plan(
    seconds: float,
    *,
    seconds_per_sample: float,
    num_samples: int,
    embedding_size: int,
    estimator: Estimator = "auto",
    current: Plan | None = None,
) -> Plan:
    """The most samples that fit: all of them exactly, or fewer, or a sketch of more.

    A plan that is still about right is kept, because values of other samples are other values: one that needs from half
    to 1.25 times the seconds there are. What is too much comes off later measurements.

    Args:
        seconds: for Jacobians.
        seconds_per_sample: of an exact Jacobian, over all sets.
        num_samples: at most so many.
        embedding_size: K.
        estimator: ``auto`` chooses.
        current: the plan so far.

    Returns:
        A plan with at least 64 samples (or all there are), whatever they cost.
    """
    affordable = seconds / max(seconds_per_sample, 1e-9)
    if current is not None and 0.8 <= affordable / exact_equivalents(current, embedding_size) <= 2.0:
        return current
    rows = sketch_rows(embedding_size)
    can_sketch = rows < embedding_size and num_samples > CALIBRATION_SAMPLES and estimator != "exact"
    # a sketch has its own rows for each of the two scores
    sketched = int((affordable - CALIBRATION_SAMPLES) * embedding_size / (2 * rows)) if can_sketch else 0
    exact = Plan(_rounded(affordable, num_samples))
    if estimator == "sketch" and can_sketch:
        return Plan(_rounded(sketched, num_samples), rows)
    if exact.samples < min(FEWEST_EXACT, num_samples) and sketched >= 2 * exact.samples:
        return Plan(_rounded(sketched, num_samples), rows)
    return exact


def exact_equivalents(plan: Plan, embedding_size: int) -> float:
    """How many exact Jacobians cost as much."""
    if plan.rows is None:
        return float(plan.samples)
    return CALIBRATION_SAMPLES + plan.samples * 2.0 * plan.rows / embedding_size


def sketch_rows(embedding_size: int) -> int:
    """m: an eighth of K, from 2 to 16."""
    return max(2, min(LARGEST_SKETCH, embedding_size // 8))


def _rounded(samples: float, most: int) -> int:
    """Whole steps of a quarter of an octave, so that small changes of speed change nothing."""
    fewest = min(FEWEST_SAMPLES, most)
    if samples >= most or samples <= fewest:
        return most if samples >= most else fewest
    steps = math.floor(4.0 * math.log2(samples / fewest) + 1e-9)
    return int(fewest * 2.0 ** (steps / 4.0) + 1e-6)
