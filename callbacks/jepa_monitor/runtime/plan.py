"""The work of a measurement: exact Jacobians of all samples or of fewer, or few rows of more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..density.subspace import subspace_rows

Estimator = Literal["auto", "exact", "subspace"]

FEWEST_SAMPLES = 16
FEWEST_RANKED = 64  # with fewer, a rank correlation is mostly chance
FEWEST_EXACT = 256  # below it, estimates of more samples say more than exact values
CALIBRATION_SAMPLES = 48  # exact ones beside estimates: a few would do for those, but Eq. 5 has no others
SMALLEST_ESTIMATED = 64  # K from which estimates are chosen: below it, exact Jacobians cost little more
FEWEST_REFERENCE = 512
SHARE_OF_REFERENCE = 0.25  # of the time of a measurement
REFERENCE_A_SAMPLE = 16  # reference samples for each of the probe, where no clock decides
MOMENT = 0.25  # seconds that the Jacobians of the fewest samples may always take
TOLERANCE = 1.5  # all samples are taken at so much more than they should cost: runs that can be compared are worth it


@dataclass(frozen=True)
class Plan:
    """The work of every measurement of a run.

    Attributes:
        samples: first samples of each set that get a Jacobian; embeddings are taken of all.
        subspace: volumes are estimated in a subspace from a few rows of the Jacobian, not exact.
        reference: reference samples that are embedded; 0 for those alone that baselines are fitted to.
        further_sets: further sets, from the first, that get Jacobians; ``None`` is all of them.
    """

    samples: int
    subspace: bool = False
    reference: int = 0
    further_sets: int | None = None

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Plan:
        """Make the plan that a checkpoint keeps; the sketch of an earlier version becomes a subspace."""
        kept = dict(state)
        return cls(**{"subspace": kept.pop("sketch", False)} | kept)

    def with_jacobians(self, sets: Sequence[str]) -> Sequence[str]:
        """Those of the sets, the probe first, that get Jacobians."""
        return sets if self.further_sets is None else sets[: 1 + self.further_sets]

    def __str__(self) -> str:
        text = f"{'a few rows of the' if self.subspace else 'exact'} Jacobians of {self.samples} samples"
        if self.further_sets is not None:
            text += f" of the probe{f' and {self.further_sets} further sets' if self.further_sets else ' alone'}"
        return f"{text} and up to {self.reference} reference embeddings" if self.reference else text


@dataclass(frozen=True)
class Trial:
    """Seconds that a trial of the encoder took, and the size of its embedding.

    Attributes:
        per_jacobian: seconds of one more sample's exact Jacobian.
        per_forward: seconds of one more sample's embedding, on one process, as training computes it.
        rest: seconds of a whole measurement without its Jacobians: embeddings, densities of a few hundred, scores.
        embedding_size: K.
        rank: r of the volumes, as far as it is known by then.
        per_reference: seconds of one more reference sample, and its share of reading it once.
        most_reference: number of reference samples that there are.
        sets: number of sets, the probe among them.
    """

    per_jacobian: float
    per_forward: float
    rest: float
    embedding_size: int
    rank: int
    per_reference: float = 0.0
    most_reference: int = 0
    sets: int = 1

    def besides(self, reference: int) -> float:
        """Seconds of a measurement without Jacobians; fitting a density grows about as the root of its embeddings."""
        return self.rest * math.sqrt(max(1.0, reference / FEWEST_REFERENCE)) + self.per_reference * reference


def choose_reference(seconds: float, trial: Trial) -> int:
    """The most reference samples, 512 or doublings of it, for which no more than a quarter of the seconds is added.

    Returns:
        From 512 to as many as there are; 0 where that is none.
    """
    count, allowed = FEWEST_REFERENCE, SHARE_OF_REFERENCE * seconds + trial.rest
    while count < trial.most_reference and trial.besides(2 * count) <= allowed:
        count *= 2
    return min(count, trial.most_reference)


def choose_plan(
    seconds: float,
    *,
    seconds_per_sample: float,
    num_samples: int,
    embedding_size: int,
    rank: int,
    estimator: Estimator = "auto",
    sets: int = 1,
) -> Plan:
    """Take the most samples that fit: all of them exactly, or fewer, or a few rows of more.

    Further sets, the last ones first, go without Jacobians where those of the fewest samples would take too long.

    Args:
        seconds: time for Jacobians.
        seconds_per_sample: seconds of an exact Jacobian.
        num_samples: samples of each set.
        embedding_size: K.
        rank: r of the volumes.
        estimator: ``exact``, ``subspace``, or ``auto``, which chooses.
        sets: number of sets, the probe among them.

    Returns:
        A plan with at least 16 samples (or all there are) of the probe, whatever they cost.
    """
    fewest = max(seconds_per_sample, 1e-9) * min(FEWEST_SAMPLES, num_samples)
    taken = min(sets, max(1, math.floor(max(TOLERANCE * seconds, MOMENT) / fewest)))
    affordable = seconds / max(taken * seconds_per_sample, 1e-9)
    plan = _plan_of_sets(affordable, num_samples, embedding_size, rank, estimator)
    return plan if taken == sets else replace(plan, further_sets=taken - 1)


def _plan_of_sets(affordable: float, num_samples: int, embedding_size: int, rank: int, estimator: Estimator) -> Plan:
    """Take the most of ``affordable`` samples, or of more by a few rows."""
    exact = Plan(_rounded(affordable, num_samples))
    rows = subspace_rows(rank, embedding_size)
    if estimator == "exact" or not can_estimate(num_samples, rows, embedding_size):
        return exact
    estimable = (affordable - CALIBRATION_SAMPLES) * embedding_size / rows
    estimated = Plan(max(_rounded(estimable, num_samples), min(FEWEST_RANKED, num_samples)), subspace=True)
    if estimator == "subspace":
        return estimated
    says_more = embedding_size >= SMALLEST_ESTIMATED and estimable >= max(2 * exact.samples, FEWEST_RANKED)
    return estimated if exact.samples < min(FEWEST_EXACT, num_samples) and says_more else exact


def can_estimate(samples: int, rows: int, embedding_size: int) -> bool:
    """Return true where there are more samples than exact ones beside estimates, and more directions than rows."""
    return samples > CALIBRATION_SAMPLES and rows < embedding_size


def _rounded(samples: float, most: int) -> int:
    """Return all samples, or whole steps of half an octave, so that small differences of speed make none."""
    fewest = min(FEWEST_SAMPLES, most)
    if TOLERANCE * samples >= most or samples <= fewest:
        return most if TOLERANCE * samples >= most else fewest
    steps = math.floor(2.0 * math.log2(samples / fewest) + 1e-9)
    return int(fewest * 2.0 ** (steps / 2.0) + 1e-6)
