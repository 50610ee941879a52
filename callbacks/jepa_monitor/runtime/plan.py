"""The work of a measurement: exact Jacobians of all samples or of fewer, or few rows of more."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
TOLERANCE = 1.5  # all samples are taken at so much more than they should cost: runs that can be compared are worth it


@dataclass(frozen=True)
class Plan:
    """The work of every measurement of a run.

    Attributes:
        samples: first samples of each set that get a Jacobian; embeddings are taken of all.
        subspace: volumes are estimated in a subspace from a few rows of the Jacobian, not exact.
        reference: reference samples that are embedded; 0 for those alone that baselines are fitted to.
    """

    samples: int
    subspace: bool = False
    reference: int = 0

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Plan:
        """Make the plan that a checkpoint keeps; the sketch of an earlier version becomes a subspace."""
        kept = dict(state)
        return cls(**{"subspace": kept.pop("sketch", False)} | kept)

    def __str__(self) -> str:
        jacobians = f"{'a few rows of the' if self.subspace else 'exact'} Jacobians of {self.samples} samples"
        return f"{jacobians} and up to {self.reference} reference embeddings" if self.reference else jacobians


@dataclass(frozen=True)
class Trial:
    """Seconds that a trial of the encoder took, and the size of its embedding.

    Attributes:
        per_jacobian: seconds of one more sample, with an exact Jacobian in each set.
        per_forward: seconds of one more sample's embedding, on one process, as training computes it.
        rest: seconds of a whole measurement without its Jacobians: embeddings, densities of a few hundred, scores.
        embedding_size: K.
        rank: r of the volumes, as far as it is known by then.
        per_reference: seconds of one more reference sample, and its share of reading it once.
        most_reference: number of reference samples that there are.
    """

    per_jacobian: float
    per_forward: float
    rest: float
    embedding_size: int
    rank: int
    per_reference: float = 0.0
    most_reference: int = 0

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
) -> Plan:
    """Take the most samples that fit: all of them exactly, or fewer, or a few rows of more.

    Args:
        seconds: time for Jacobians.
        seconds_per_sample: seconds of an exact Jacobian, over all sets.
        num_samples: samples there are.
        embedding_size: K.
        rank: r of the volumes.
        estimator: ``exact``, ``subspace``, or ``auto``, which chooses.

    Returns:
        A plan with at least 16 samples (or all there are), whatever they cost.
    """
    affordable = seconds / max(seconds_per_sample, 1e-9)
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
