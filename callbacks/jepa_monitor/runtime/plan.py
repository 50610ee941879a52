"""The work of a measurement: exact Jacobians of all samples or of fewer, or sketched ones of more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Estimator = Literal["auto", "exact", "sketch"]

FEWEST_SAMPLES = 16
FEWEST_RANKED = 64  # with fewer, a rank correlation is mostly chance
FEWEST_EXACT = 256  # below it, a sketch on more samples says more than exact values
CALIBRATION_SAMPLES = 48  # exact ones behind a sketch
SMALLEST_SKETCHED = 64  # K from which a sketch is chosen: below it, its rows are too few to rank by
LARGEST_SKETCH = 16
FEWEST_REFERENCE = 512
SHARE_OF_REFERENCE = 0.25  # of the time of a measurement
REFERENCE_A_SAMPLE = 16  # reference samples for each of the probe, where no clock decides
TOLERANCE = 1.5  # all samples are taken at so much more than they should cost: runs that can be compared are worth it


@dataclass(frozen=True)
class Plan:
    """The work of every measurement of a run.

    Attributes:
        samples: first samples of each set that get a Jacobian; embeddings are taken of all.
        sketch: Jacobians are sketched, not exact.
        reference: reference samples that are embedded; 0 for those alone that baselines are fitted to.
    """

    samples: int
    sketch: bool = False
    reference: int = 0

    def __str__(self) -> str:
        jacobians = f"{'sketched' if self.sketch else 'exact'} Jacobians of {self.samples} samples"
        return f"{jacobians} and up to {self.reference} reference embeddings" if self.reference else jacobians


@dataclass(frozen=True)
class Trial:
    """Seconds that a trial of the encoder took, and the size of its embedding.

    Attributes:
        per_jacobian: seconds of one more sample, with an exact Jacobian in each set.
        per_forward: seconds of one more sample's embedding, on one process, as training computes it.
        embeddings: seconds of the embeddings of all samples.
        embedding_size: K.
        per_reference: seconds of one more reference sample, and its share of reading it once.
        most_reference: number of reference samples that there are.
    """

    per_jacobian: float
    per_forward: float
    embeddings: float
    embedding_size: int
    per_reference: float = 0.0
    most_reference: int = 0


def choose_reference(seconds: float, *, seconds_per_sample: float, most: int) -> int:
    """The most reference samples, 512 or doublings of it, that take no more than a quarter of the seconds.

    Returns:
        From 512 to ``most``; 0 where that is none.
    """
    affordable = SHARE_OF_REFERENCE * seconds / max(seconds_per_sample, 1e-9)
    doublings = max(0, math.floor(math.log2(max(affordable, 1.0) / FEWEST_REFERENCE) + 1e-9))
    return min(FEWEST_REFERENCE << doublings, most)


def choose_plan(
    seconds: float,
    *,
    seconds_per_sample: float,
    num_samples: int,
    embedding_size: int,
    estimator: Estimator = "auto",
) -> Plan:
    """Take the most samples that fit: all of them exactly, or fewer, or sketches of more.

    Args:
        seconds: time for Jacobians.
        seconds_per_sample: seconds of an exact Jacobian, over all sets.
        num_samples: samples there are.
        embedding_size: K.
        estimator: ``exact``, ``sketch``, or ``auto``, which chooses.

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
    """Return true where there are more samples than calibrate a sketch, and more directions than it has rows."""
    return samples > CALIBRATION_SAMPLES and sketch_rows(embedding_size) < embedding_size


def sketch_rows(embedding_size: int) -> int:
    """Return m, an eighth of K, from 2 to 16."""
    return max(2, min(LARGEST_SKETCH, embedding_size // 8))


def _rounded(samples: float, most: int) -> int:
    """Return all samples, or whole steps of half an octave, so that small differences of speed make none."""
    fewest = min(FEWEST_SAMPLES, most)
    if TOLERANCE * samples >= most or samples <= fewest:
        return most if TOLERANCE * samples >= most else fewest
    steps = math.floor(2.0 * math.log2(samples / fewest) + 1e-9)
    return int(fewest * 2.0 ** (steps / 2.0) + 1e-6)
