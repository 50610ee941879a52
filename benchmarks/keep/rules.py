"""Rules that say which checkpoint of a run to keep, and what keeping it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from jepa_monitor.ranking import spearman
from jepa_monitor.tags import meaning_of
from keep.curves import LOSS, Curve, Vector

FEWEST = 4  # values that a rank correlation needs
DRAWS = 2_000
Interval = tuple[float, float, float]  # value, and the ends of 95 %


@dataclass(frozen=True)
class Rule:
    """A label-free rule: keep the checkpoint with the highest value.

    Attributes:
        tags: one tag, or two whose ranks within a run are averaged.
    """

    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its tags."""
        return " and ".join(self.tags)


def direction(tag: str) -> str:
    """``higher``, ``lower``, ``near x``, or ``-`` where the page of tags calls neither better."""
    if tag.startswith(LOSS):
        return "lower"
    found = meaning_of(tag)
    return found.better if found else "-"


def oriented(values: Vector, better: str) -> Vector:
    """Turn values so that higher is better."""
    if better.startswith("near "):
        return -np.abs(values - float(better.removeprefix("near ")))
    return -values if better == "lower" else values


def position_of_best(values: Vector) -> int:
    """Position of the highest value, the latest of equal ones; the last where none is finite."""
    known = np.where(np.isfinite(values), values, -np.inf)
    return len(known) - 1 - int(known[::-1].argmax()) if np.isfinite(known).any() else len(known) - 1


def regret(accuracy: Vector, position: int) -> float:
    """Accuracy that is lost by keeping one checkpoint instead of the best, in points of a hundred."""
    return 100.0 * float(accuracy.max() - accuracy[position])


def agreement(values: Vector, accuracy: Vector) -> float:
    """Spearman correlation over the checkpoints whose value is finite; NaN where they are few or equal."""
    there = np.isfinite(values)
    return spearman(values[there], accuracy[there]) if there.sum() >= FEWEST else math.nan


def ranks(values: Vector) -> Vector:
    """Ranks within a run from 0 to 1, equal values sharing theirs; what is not finite is below all."""
    known = np.where(np.isfinite(values), values, -np.inf)
    found: Vector = (rankdata(known) - 1.0) / max(len(known) - 1, 1)
    return found


class Judged:
    """Curves of runs, judged by one accuracy.

    Directions that the page of tags does not state are those of the runs of other objectives than the one at hand.

    Args:
        curves: runs.
        judge: name of the accuracy.
    """

    def __init__(self, curves: Sequence[Curve], judge: str) -> None:
        self.curves = curves
        self.judge = judge
        self.accuracies = [curve.accuracies[judge] for curve in curves]
        self.objectives = [curve.objective for curve in curves]
        self.groups = [curve.name for curve in curves]
        self._agreements: dict[str, list[float]] = {}
        self._learnt: dict[tuple[str, str], str] = {}
        self._ranks: dict[tuple[str, str, int], Vector] = {}

    @property
    def tags(self) -> list[str]:
        """Tags with at least two different values in most runs, in order of their names."""
        found: dict[str, int] = {}
        for curve in self.curves:
            for tag, values in curve.tags.items():
                found[tag] = found.get(tag, 0) + (len(np.unique(values[np.isfinite(values)])) > 1)
        return sorted(tag for tag, count in found.items() if 2 * count > len(self.curves))

    def others(self, objective: str) -> list[int]:
        """Positions of the runs of other objectives."""
        return [i for i, other in enumerate(self.objectives) if other != objective]

    def better(self, tag: str, held_out: str) -> str:
        """Direction of a tag, known without the runs of one objective."""
        if (stated := direction(tag)) != "-":
            return stated
        if tag not in self._agreements:
            pairs = zip(self.curves, self.accuracies, strict=True)
            self._agreements[tag] = [agreement(self._of(curve, tag), accuracy) for curve, accuracy in pairs]
        if (tag, held_out) not in self._learnt:
            known = [self._agreements[tag][i] for i in self.others(held_out)]
            self._learnt[tag, held_out] = "lower" if np.nansum(known) < 0.0 else "higher"
        return self._learnt[tag, held_out]

    def values(self, tag: str, i: int, held_out: str) -> Vector:
        """A tag of a run, turned so that higher is better."""
        return oriented(self._of(self.curves[i], tag), self.better(tag, held_out))

    def combined(self, rule: Rule, i: int, held_out: str) -> Vector:
        """Ranks within a run, the mean of those of the rule's tags."""
        parts = []
        for tag in rule.tags:
            key = (tag, self.better(tag, held_out), i)
            if key not in self._ranks:
                self._ranks[key] = ranks(self.values(tag, i, held_out))
            parts.append(self._ranks[key])
        return np.mean(parts, axis=0)

    def regret(self, rule: Rule, i: int, held_out: str) -> float:
        """Points that a rule loses in a run."""
        return regret(self.accuracies[i], position_of_best(self.combined(rule, i, held_out)))

    def regrets(self, rule: Rule) -> Vector:
        """Points that a rule loses in each run."""
        return np.array([self.regret(rule, i, objective) for i, objective in enumerate(self.objectives)])

    def agreements(self, rule: Rule) -> Vector:
        """Correlation within each run of a rule's values with the accuracy."""
        return np.array(
            [
                agreement(self.combined(rule, i, objective), self.accuracies[i])
                if any(np.isfinite(self.values(tag, i, objective)).sum() >= FEWEST for tag in rule.tags)
                else math.nan
                for i, objective in enumerate(self.objectives)
            ]
        )

    def at_the_end(self, tag: str) -> tuple[Vector, Vector]:
        """Last value of a tag and last accuracy of each run; unstated directions by the other objectives."""
        values = [self.values(tag, i, objective)[-1] for i, objective in enumerate(self.objectives)]
        return np.array(values), np.array([accuracy[-1] for accuracy in self.accuracies])

    def last(self) -> Vector:
        """Points that keeping the last checkpoint loses in each run."""
        return np.array([regret(accuracy, len(accuracy) - 1) for accuracy in self.accuracies])

    def random(self) -> Vector:
        """Points that keeping any checkpoint loses on average in each run."""
        found = [np.mean([regret(accuracy, at) for at in range(len(accuracy))]) for accuracy in self.accuracies]
        return np.array(found)

    def chosen(self, rules: Sequence[Rule]) -> tuple[list[Rule], Vector]:
        """Choose for each run the rule that costs least in runs of other objectives; its cost in this one beside it."""
        by_objective = {objective: self._best(rules, objective) for objective in dict.fromkeys(self.objectives)}
        found = [by_objective[objective] for objective in self.objectives]
        costs = [self.regret(rule, i, self.objectives[i]) for i, rule in enumerate(found)]
        return found, np.array(costs)

    def _best(self, rules: Sequence[Rule], held_out: str) -> Rule:
        others = self.others(held_out)
        return min(rules, key=lambda rule: float(np.mean([self.regret(rule, i, held_out) for i in others])))

    @staticmethod
    def _of(curve: Curve, tag: str) -> Vector:
        return curve.tags.get(tag, np.full(len(curve.steps), math.nan))


def single(tags: Sequence[str]) -> list[Rule]:
    """Rules of one tag."""
    return [Rule((tag,)) for tag in tags]


def pairs(tags: Sequence[str]) -> list[Rule]:
    """Rules of two tags."""
    return [Rule(two) for two in combinations(tags, 2)]


def times_drawn(groups: Sequence[str], draws: int = DRAWS) -> Vector:
    """(draws, R) times that each run is drawn in a bootstrap, all seeds of a training together."""
    names = list(dict.fromkeys(groups))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return drawn[:, [names.index(group) for group in groups]].astype(np.float64)


def interval(values: Vector, times: Vector) -> Interval:
    """Mean of the finite values, and the ends of 95 % of its bootstrapped means; NaN for none."""
    there = np.isfinite(values)
    if not there.any():
        return math.nan, math.nan, math.nan
    return _with_ends(float(values[there].mean()), times[:, there] @ values[there], times[:, there].sum(1))


def interval_of_ratio(values: Vector, others: Vector, times: Vector) -> Interval:
    """Mean of values over the mean of others in the same runs, and the ends of 95 % of its bootstrapped ones."""
    ratio = float(values.sum() / others.sum()) if others.any() else math.nan
    return _with_ends(ratio, times @ values, times @ others)


def _with_ends(value: float, above: Vector, below: Vector) -> Interval:
    """Add the ends of 95 % of drawn fractions, those without a denominator left out."""
    there = below > 0.0
    low, high = np.quantile(above[there] / below[there], [0.025, 0.975]) if there.any() else (math.nan, math.nan)
    return value, float(low), float(high)
