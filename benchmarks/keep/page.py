"""Tables and figures of docs/selection.md and docs/selection/tables.md, from the kept curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from study import drawing
from study.rows import labels

from jepa_monitor.ranking import spearman
from keep import falls
from keep.curves import JUDGES, KEEP, LOSS, Curve, Vector
from keep.rules import (
    Interval,
    Judged,
    Rule,
    direction,
    interval,
    interval_of_ratio,
    pairs,
    position_of_best,
    single,
    times_drawn,
)

GOAL = 0.5  # of the regret of other rules
FIRST, SECOND = JUDGES
LAST, LOWEST, RANDOM = "keep the last", "lowest loss", "any at random"
ONE, TWO = "chosen tag", "chosen pair of tags"
COLOURS = {LAST: drawing.ORANGE, LOWEST: drawing.PURPLE, RANDOM: drawing.GREY, ONE: drawing.GREEN, TWO: drawing.BLUE}
SHOWN_WARNINGS, SHOWN_TAGS, COLUMNS = 8, 8, 4
SHOWN_TRAININGS = 8


@dataclass(frozen=True)
class Verdict:
    """Costs of all rules by one judge.

    Attributes:
        judged: runs and their judge.
        costs: (R,) points of accuracy that each rule loses in each run.
        chosen: the rule of each run behind ``ONE`` and ``TWO``.
        times: (B, R) see :func:`times_drawn`.
    """

    judged: Judged
    costs: Mapping[str, Vector]
    chosen: Mapping[str, list[Rule]]
    times: Vector

    @classmethod
    def of(cls, curves: Sequence[Curve], judge: str) -> Verdict:
        """Let every rule keep a checkpoint of every run."""
        judged = Judged(curves, judge)
        one, of_one = judged.chosen(single(judged.tags))
        two, of_two = judged.chosen(pairs(judged.tags))
        costs = {
            LAST: judged.last(),
            LOWEST: judged.regrets(Rule((LOSS,))),
            RANDOM: judged.random(),
            ONE: of_one,
            TWO: of_two,
            **{tag: judged.regrets(Rule((tag,))) for tag in judged.tags},
        }
        return cls(judged, costs, {ONE: one, TWO: two}, times_drawn(judged.groups))

    @cached_property
    def best_tags(self) -> list[str]:
        """Tags, those that cost least on average first."""
        return sorted(self.judged.tags, key=lambda tag: float(self.costs[tag].mean()))

    def cost(self, name: str) -> Interval:
        """Mean cost and its interval."""
        return interval(self.costs[name], self.times)

    def ratio(self, name: str, other: str) -> Interval:
        """Cost over that of another rule."""
        return interval_of_ratio(self.costs[name], self.costs[other], self.times)

    def within(self, tag: str) -> Interval:
        """Mean correlation within runs."""
        return interval(self.judged.agreements(Rule((tag,))), self.times)

    def across(self, tag: str) -> Interval:
        """Correlation over runs of the last value and the last accuracy."""
        values, accuracy = self.judged.at_the_end(tag)
        there = np.isfinite(values)
        if there.sum() < 4:
            return math.nan, math.nan, math.nan
        drawn = [np.repeat(np.arange(len(values)), times.astype(int)) for times in self.times[:200]]
        found = [spearman(values[at][there[at]], accuracy[at][there[at]]) for at in drawn if there[at].sum() > 3]
        known = [one for one in found if math.isfinite(one)] or [math.nan]
        low, high = np.quantile(known, [0.025, 0.975])
        return spearman(values[there], accuracy[there]), float(low), float(high)


def tables(curves: Sequence[Curve]) -> tuple[str, str]:
    """Print what the rules lose, and besides the goal, all tags, all trainings, and early warning."""
    verdicts = {judge: Verdict.of(curves, judge) for judge in JUDGES}
    first, second = verdicts[FIRST], verdicts[SECOND]
    parts = [
        summary(curves, verdicts),
        f"**Chosen without the objective**\n\n{choices(first)}",
        f"**Every tag by itself**\n\n{of_tags(first, second)}",
        f"**Every training, by the {FIRST}**\n\n{of_trainings(first)}",
        f"**Early warning**\n\n{early(falls.warnings(first.judged))}",
    ]
    return overview(first, second), "\n\n".join(parts)


def summary(curves: Sequence[Curve], verdicts: Mapping[str, Verdict]) -> str:
    """Print the number of runs, and whether the goal is reached by each judge."""
    names, objectives = labels([vars(curve) for curve in curves], "name"), {curve.objective for curve in curves}
    head = f"{len(curves)} runs of {len(names)} trainings with {len(objectives)} objectives."
    goals = [f"- {judge}: {goal(verdict)}" for judge, verdict in verdicts.items()]
    return "\n".join([head, "", *goals, *parts(verdicts[FIRST])])


def parts(verdict: Verdict) -> list[str]:
    """Print what rules cost in runs whose settings were spoiled, and in the others."""
    spoiled = np.array([name.startswith("spoiled") for name in verdict.judged.groups])
    rules = [rule for rule in (LAST, LOWEST, KEEP) if rule in verdict.costs]
    return [
        f"- {what}, {there.sum()} runs, {FIRST}: "
        + ", ".join(f"{shown(rule)} {verdict.costs[rule][there].mean():.2f}" for rule in rules)
        + "."
        for what, there in (("settings spoiled on purpose", spoiled), ("others", ~spoiled))
        if there.any()
    ]


def goal(verdict: Verdict) -> str:
    """Print whether a rule chosen without the objective halves what others cost."""
    said = []
    for name in (ONE, TWO):
        for other in (LAST, LOWEST):
            value, low, high = verdict.ratio(name, other)
            word = "reached" if value <= GOAL else "missed"
            said.append(f"{name} costs {value:.2f} ({low:.2f}-{high:.2f}) of {other}, {word}")
    return "; ".join(said) + f" ({GOAL} is the goal)."


def overview(first: Verdict, second: Verdict) -> str:
    """Rules beside one another, by both judges."""
    lines = []
    for name in (LAST, LOWEST, RANDOM, ONE, TWO, *first.best_tags[:3]):
        worst = f"{first.costs[name].max():.1f}"
        lines.append([shown(name), with_ends(first.cost(name)), worst, with_ends(second.cost(name))])
    return markdown(["rule", FIRST, "worst run", SECOND], lines)


def shown(name: str) -> str:
    """A tag in backticks; a rule with a name as it is."""
    return name if name in COLOURS else f"`{name}`"


def choices(verdict: Verdict) -> str:
    """Print the rules chosen for each objective from the runs of the others."""
    found = {}
    for i, objective in enumerate(verdict.judged.objectives):
        found.setdefault(objective, [verdict.chosen[name][i].name for name in (ONE, TWO)])
    return markdown(["objective", ONE, TWO], [[name, *map(shown, rules)] for name, rules in sorted(found.items())])


def of_tags(first: Verdict, second: Verdict) -> str:
    """Every tag, those that cost least first."""
    lines = []
    for tag in first.best_tags:
        correlations = [with_ends(found, 2) for found in (first.within(tag), first.across(tag))]
        costs = [with_ends(first.cost(tag)), with_ends(second.cost(tag))]
        lines.append([f"`{tag}`", direction_shown(first.judged, tag), *costs, *correlations])
    titles = ["tag", "better", f"points lost, {FIRST}", f"points lost, {SECOND}", "Spearman within", "across runs"]
    return markdown(titles, lines)


def direction_shown(judged: Judged, tag: str) -> str:
    """The stated direction, or the one that was learnt, which may differ from objective to objective."""
    if (stated := direction(tag)) != "-":
        return stated
    found = sorted({judged.better(tag, objective) for objective in judged.objectives})
    return f"learnt: {' or '.join(found)}"


def of_trainings(verdict: Verdict) -> str:
    """Accuracies of each training, and what three rules lose there."""
    lines = []
    for name in labels([vars(curve) for curve in verdict.judged.curves], "name"):
        at = [i for i, group in enumerate(verdict.judged.groups) if group == name]
        accuracies = [verdict.judged.accuracies[i] for i in at]
        best, last = (100.0 * np.mean([f(found) for found in accuracies]) for f in (np.max, lambda found: found[-1]))
        costs = [f"{verdict.costs[rule][at].mean():.1f}" for rule in (LAST, LOWEST, ONE, TWO)]
        lines.append([name, str(len(at)), f"{best:.1f}", f"{last:.1f}", *costs])
    return markdown(["training", "runs", "best", "last", LAST, LOWEST, ONE, TWO], lines)


def early(found: Mapping[str, falls.Warnings]) -> str:
    """Signals that warn in time, those that warn of most falls first; ``monitor/alarm_collapse`` in any case."""
    one = next(iter(found.values()))
    if not one.leads:
        return f"No accuracy falls by a tenth in any of {len(one.false_alarms)} runs."
    (alarm, of_alarm), *rest = found.items()
    best = sorted(rest, key=lambda item: (-item[1].in_time, sum(item[1].false_alarms)))[:SHOWN_WARNINGS]
    lines = []
    for name, signal in [(alarm, of_alarm), *best]:
        leads = [lead for lead in signal.leads if lead >= 0.0]
        steps = f"{median(leads):.0f} ({min(leads):.0f}-{max(leads):.0f})" if leads else "-"
        false = f"{sum(signal.false_alarms)} of {len(signal.false_alarms)}"
        lines.append([f"`{name}`", f"{signal.in_time} of {len(signal.leads)}", steps, false])
    return markdown(["signal", "falls seen in time", "steps before", "runs without a fall in which it moves"], lines)


def with_ends(found: Interval, digits: int = 1) -> str:
    """A value with the ends of its interval; a dash for none."""
    value, low, high = found
    return "-" if math.isnan(value) else f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Print a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *lines])


def figures(curves: Sequence[Curve]) -> dict[str, Figure]:
    """Draw the costs of rules, and the checkpoints that they keep."""
    verdict = Verdict.of(curves, FIRST)
    return {"rules": rules_figure(verdict), "curves": curves_figure(verdict)}


def rules_figure(verdict: Verdict) -> Figure:
    """Points that each rule loses: a dot a run, and their mean."""
    names = [*COLOURS, *verdict.best_tags[:SHOWN_TAGS]]
    made, [[axes]] = drawing.figure(4.2, 1, 1)
    for height, name in enumerate(names):
        colour, costs = COLOURS.get(name, drawing.GREY), verdict.costs[name]
        axes.plot(costs, [height] * len(costs), "o", color=colour, markersize=3, alpha=0.5)
        axes.plot(costs.mean(), height, "o", color=colour, markersize=8, markeredgewidth=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"points of {FIRST} accuracy lost: runs small, their mean large")
    return made


def curves_figure(verdict: Verdict) -> Figure:
    """Accuracy over steps where three rules differ most, one seed a training, and the checkpoints that they keep."""
    judged = verdict.judged
    apart = np.ptp(np.stack([verdict.costs[rule] for rule in (LAST, LOWEST, ONE)]), axis=0)
    found = {name: judged.groups.index(name) for name in dict.fromkeys(judged.groups)}
    shown = sorted(found, key=lambda name: -float(apart[found[name]]))[:SHOWN_TRAININGS]
    first_of = {name: place for name, place in found.items() if name in shown}
    rows = math.ceil(len(first_of) / COLUMNS)
    made, axes = drawing.figure(1.6 * rows + 0.6, rows, COLUMNS, sharex=True)
    cells = [cell for line in axes for cell in line]
    for cell in cells[len(first_of) :]:
        cell.set_axis_off()
    for cell in cells[max(0, len(first_of) - COLUMNS) : len(first_of)]:
        cell.set_xlabel("optimizer step")
    for line in axes:
        line[0].set_ylabel(f"{FIRST}, %")
    for cell, (name, i) in zip(cells, first_of.items(), strict=False):
        curve, accuracy = judged.curves[i], 100.0 * judged.accuracies[i]
        cell.plot(curve.steps, accuracy, "-", color=drawing.GREY, linewidth=1.4)
        kept = {LAST: len(accuracy) - 1, LOWEST: position_of_best(judged.combined(Rule((LOSS,)), i, curve.objective))}
        kept[ONE] = position_of_best(judged.combined(verdict.chosen[ONE][i], i, curve.objective))
        for size, (rule, at) in zip((9, 6, 3.5), kept.items(), strict=True):
            cell.plot(curve.steps[at], accuracy[at], "o", color=COLOURS[rule], markersize=size, markeredgewidth=0)
        cell.set_title(name.removeprefix("spoiled "), fontsize=9, color=drawing.GREY)
    drawing.legend(made, {rule: COLOURS[rule] for rule in (LAST, LOWEST, ONE)})
    return made
