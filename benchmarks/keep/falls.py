"""Early warning: how long before an accuracy falls an alarm or a tag moves, and how often it moves where none falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keep.curves import ALARM, Vector
from keep.rules import Judged

FALL = 0.1  # of the best accuracy so far
FALSE_ALARMS = 0.1  # share of other objectives' sound runs in which a tag may move


@dataclass(frozen=True)
class Warnings:
    """Warnings of one signal over all runs.

    Attributes:
        leads: steps from the signal to the fall of each run that falls, negative where the signal comes later; NaN
            where it never comes.
        false_alarms: whether it moves, for each run that does not fall.
    """

    leads: tuple[float, ...]
    false_alarms: tuple[bool, ...]

    @property
    def in_time(self) -> int:
        """Number of falls of which it warns before or when they happen."""
        return sum(lead >= 0.0 for lead in self.leads)


def fall_of(accuracy: Vector) -> int | None:
    """First position at which an accuracy is a tenth below its best so far; ``None`` if it never is."""
    fallen = accuracy < (1.0 - FALL) * np.maximum.accumulate(accuracy)
    return int(fallen.argmax()) if fallen.any() else None


def drops(values: Vector) -> Vector:
    """Return by how much values (S,), of which higher is better, are below their best so far.

    A value that loses its meaning has fallen without bound; before the first value there is no fall.
    """
    best = np.fmax.accumulate(values)
    found = np.where(np.isfinite(values), best - values, np.inf)
    return np.where(np.isfinite(best), found, 0.0)


def level_of(sound: Sequence[Vector]) -> float:
    """Fall that at most a tenth of the sound runs exceed; infinite where there is none."""
    largest = sorted((float(found.max()) for found in sound), reverse=True)
    return largest[math.floor(FALSE_ALARMS * len(largest))] if largest else math.inf


def warnings(judged: Judged) -> Mapping[str, Warnings]:
    """Warnings of the alarm and of each tag; a tag's level is that of sound runs of other objectives."""
    falls = [fall_of(accuracy) for accuracy in judged.accuracies]
    found = {ALARM: _warnings(judged, falls, [curve.alarm > 0.0 for curve in judged.curves])}
    for tag in judged.tags:
        found[tag] = _warnings(judged, falls, _moved(judged, falls, tag))
    return found


def _moved(judged: Judged, falls: Sequence[int | None], tag: str) -> list[Vector]:
    moved = []
    for i, objective in enumerate(judged.objectives):
        sound = [j for j in judged.others(objective) if falls[j] is None]
        level = level_of([drops(judged.values(tag, j, objective)) for j in sound])
        moved.append(drops(judged.values(tag, i, objective)) > level)
    return moved


def _warnings(judged: Judged, falls: Sequence[int | None], moved: Sequence[Vector]) -> Warnings:
    leads, false_alarms = [], []
    for curve, fall, on in zip(judged.curves, falls, moved, strict=True):
        if fall is None:
            false_alarms.append(bool(on.any()))
        else:
            leads.append(float(curve.steps[fall] - curve.steps[on.argmax()]) if on.any() else math.nan)
    return Warnings(tuple(leads), tuple(false_alarms))
