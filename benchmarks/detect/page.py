"""Tables and figures of docs/detection.md and docs/detection, from the kept rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure
from study import drawing
from study.rows import labels, values

from detect.comparison import RIVALS, difference_name
from detect.corruptions import CORRUPTIONS, SEVERITIES
from detect.methods import DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS
from detect.sets import NULL, SEVERE, severity_name

Row = Mapping[str, Any]
GOAL, FIRST = 0.99, "MNIST"
OF_CONTROL = (DEFAULT, DENSITY_ALONE, MAHALANOBIS, KNN)
IN_EXCERPT = (DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS, f"{DEFAULT}, gaussian", "Eq. 5")
COLOURS = {
    DEFAULT: drawing.BLUE,
    DENSITY_ALONE: drawing.GREEN,
    KNN: drawing.SHADES[2],
    MAHALANOBIS: drawing.ORANGE,
    "volume alone": drawing.PURPLE,
}
OVER_SEVERITIES = {method: colour for method, colour in COLOURS.items() if method != MAHALANOBIS}  # a smaller file


def tables(rows: Sequence[Row]) -> str:
    """Print verdicts, and for each encoder and output every method, all metrics of one set, and differences."""
    found = [verdicts(rows)]
    for encoder in labels([row for row in rows if not row["control"]]):
        for output in labels([row for row in rows if row["label"] == encoder], "output"):
            of = [row for row in rows if row["output"] == output and encoder in (row["label"], row["control"])]
            found.append(f"**{encoder}, {output}**: AUROC\n\n{overview(of)}")
            found.append(f"**{encoder}, {output}**, against {_first(of)}\n\n{details(of, _first(of))}")
    return "\n\n".join([*found, f"**AUROC of `{DEFAULT}` less that of others**\n\n{differences(rows)}"])


def excerpt(rows: Sequence[Row]) -> str:
    """Print the AUROC of few methods, by each output of the first encoder."""
    of = [row for row in rows if not row["control"] and row["label"] == rows[0]["label"]]
    outputs = {output: [row for row in of if row["output"] == output] for output in labels(of, "output")}
    titles = columns(of)
    lines = [
        [method, output, *_cells(those, method, titles)[: len(titles)]]
        for method in IN_EXCERPT
        for output, those in outputs.items()
    ]
    return markdown(["score", "vector", *titles], lines)


def _first(rows: Sequence[Row]) -> str:
    names = [name for name in labels(rows, "set") if name != NULL]
    return FIRST if FIRST in names else str(names[0])


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Sets of a column by its title: a corruption has one, the mean over its severities."""
    names = [name for name in labels(rows, "set") if name not in SEVERE and name != NULL]
    severe = {name: [severity_name(name, severity) for severity in SEVERITIES] for name in CORRUPTIONS}
    there = set(labels(rows, "set"))
    return {name: [name] for name in names} | {name: sets for name, sets in severe.items() if there.issuperset(sets)}


def overview(rows: Sequence[Row]) -> str:
    """Print the median over seeds of every method's AUROC against each set, and of random weights below."""
    titles = columns(rows)
    lines = []
    for control in (False, True):
        of = [row for row in rows if bool(row["control"]) == control]
        methods = labels([row for row in of if not is_difference(row)], "method")
        shown = [method for method in methods if not control or method in OF_CONTROL]
        suffix = ", random weights" if control else ""
        lines += [[f"{method}{suffix}", *_cells(of, method, titles)] for method in shown]
    return markdown(["", *titles, "ID against ID", "with size"], lines)


def _cells(rows: Sequence[Row], method: str, titles: Mapping[str, Sequence[str]]) -> list[str]:
    seeds = labels(rows, "encoder")
    cells = []
    for sets in [*titles.values(), [NULL]]:
        means = [
            fmean(found) for seed in seeds if (found := [_one(rows, "auroc", method, seed, name) for name in sets])
        ]
        cells.append(number(means))
    return [*cells, number(values(rows, "complexity", method=method, set=NULL))]


def _one(rows: Sequence[Row], column: str, method: str, encoder: str, name: str) -> float:
    found = values(rows, column, method=method, encoder=encoder, set=name)
    return found[0] if found else math.nan


def details(rows: Sequence[Row], name: str) -> str:
    """Print every metric of one set: medians over seeds, as are the ends of intervals."""
    of = [row for row in rows if row["set"] == name and not row["control"] and not is_difference(row)]
    titles = {
        "AUPR in, trapezoidal": "aupr_in_trapezoidal",
        "stepwise": "aupr_in_stepwise",
        "AUPR out, trapezoidal": "aupr_out_trapezoidal",
        "stepwise ": "aupr_out_stepwise",
        "FPR95, OOD positive": "fpr95_ood_positive",
        "ID positive": "fpr95_id_positive",
    }
    lines = []
    for method in labels(of, "method"):
        cells = [interval(of, column, method) for column in ("auroc", *titles.values(), "matched")]
        lines.append([method, *cells, number(values(of, "pairs", method=method))])
    return markdown(["", "AUROC", *titles, "AUROC of matched pairs", "pairs"], lines)


def differences(rows: Sequence[Row]) -> str:
    """Print how often the default is above or below a rival by more than the interval, over all sets and seeds."""
    lines = []
    trained = [row for row in rows if not row["control"]]
    for encoder in labels(trained):
        for output in labels([row for row in trained if row["label"] == encoder], "output"):
            of = [row for row in trained if row["label"] == encoder and row["output"] == output]
            for rival in RIVALS:
                pairs = [row for row in of if row["method"] == difference_name(rival)]
                for kind, column in (("all images", "auroc"), ("matched pairs", "matched")):
                    known = [row for row in pairs if math.isfinite(row[column])]
                    if known:
                        lines.append([f"{encoder}, {output}, {kind}", rival, *_counted(known, column)])
    return markdown(["", "less that of", "sets and seeds", "above", "below", "largest gain", "largest loss"], lines)


def _counted(rows: Sequence[Row], column: str) -> list[str]:
    above, below = is_above(rows, column), is_below(rows, column)
    best, worst = (f(rows, key=lambda row: row[column]) for f in (max, min))
    named = [f"{row['set']} {row[column]:+.3f}" for row in (best, worst)]
    return [str(len(rows)), str(len(above)), str(len(below)), *named]


def is_above(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows whose difference is above 0 with its whole interval."""
    return [row for row in rows if row[f"{column}_low"] > 0.0]


def is_below(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows whose difference is below 0 with its whole interval."""
    return [row for row in rows if row[f"{column}_high"] < 0.0]


def verdicts(rows: Sequence[Row]) -> str:
    """Say for each encoder and output whether the goal is reached, and whether the volume adds anything."""
    found = []
    trained = [row for row in rows if not row["control"]]
    for encoder in labels(trained):
        for output in labels([row for row in trained if row["label"] == encoder], "output"):
            of = [row for row in trained if row["label"] == encoder and row["output"] == output]
            found.append(f"- {encoder}, {output}: {_verdict(of)}")
    return "\n".join(found)


def _verdict(rows: Sequence[Row]) -> str:
    first = _first(rows)
    reached = median(values(rows, "auroc", method=DEFAULT, set=first) or [math.nan])
    parts = [f"AUROC {reached:.3f} against {first}, {_word(reached >= GOAL)} ({GOAL} is the goal)"]
    for rival in (MAHALANOBIS, KNN):
        for kind, column in (("", "auroc"), (" on matched pairs", "matched")):
            pairs = [row for row in rows if row["method"] == difference_name(rival) and math.isfinite(row[column])]
            below = is_below(pairs, column)
            parts.append(
                f"not below {rival}{kind}: {_word(not below)}"
                + (f", below on {len(below)} of {len(pairs)} sets and seeds" if below else "")
            )
    pairs = [row for row in rows if row["method"] == difference_name(DENSITY_ALONE)]
    above, below = len(is_above(pairs, "auroc")), len(is_below(pairs, "auroc"))
    adds = "adds something" if above > below else "adds nothing"
    parts.append(f"the volume {adds}: better than the density alone on {above} of {len(pairs)}, worse on {below}")
    return "; ".join(parts) + "."


def _word(reached: bool) -> str:
    return "reached" if reached else "missed"


def is_difference(row: Row) -> bool:
    """Tell a row that holds the difference of two methods."""
    return row["method"] in map(difference_name, RIVALS)


def number(found: Sequence[float]) -> str:
    """Print the median of what is finite, or a dash."""
    known = [value for value in found if math.isfinite(value)]
    if not known:
        return "-"
    middle = median(known)
    return str(round(middle)) if all(isinstance(value, int) for value in known) else f"{middle:.3f}"


def interval(rows: Sequence[Row], column: str, method: str) -> str:
    """Print a median over seeds with the medians of both ends of its interval."""
    middle, low, high = (number(values(rows, f"{column}{end}", method=method)) for end in ("", "_low", "_high"))
    return middle if middle == "-" else f"{middle} ({low} to {high})"


def markdown(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Print a Markdown table."""
    first = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in [first, ["---"] * len(first), *lines])


def draw_sets(rows: Sequence[Row]) -> Figure:
    """Draw a dot for each seed, and a large one for their median: methods by colour, sets below each other."""
    trained = [row for row in rows if not row["control"] and row["label"] == rows[0]["label"]]
    outputs, titles = labels(trained, "output"), columns(trained)
    figure, (axes,) = drawing.figure(0.9 + 0.42 * len(titles), 1, len(outputs), sharex=True, sharey=True)
    for output, one in zip(outputs, axes, strict=True):
        of = [row for row in trained if row["output"] == output]
        parts = {
            colour: [_of_seeds(of, method, sets) for sets in titles.values()] for method, colour in COLOURS.items()
        }
        drawing.dots(one, list(titles), parts)
        one.axvline(0.5, color=drawing.GREY, linewidth=0.8)
        one.set_xlabel("AUROC")
        one.set_title(output)
    drawing.legend(figure, COLOURS)
    return figure


def _of_seeds(rows: Sequence[Row], method: str, sets: Sequence[str]) -> list[float]:
    means = [fmean(_one(rows, "auroc", method, seed, name) for name in sets) for seed in labels(rows, "encoder")]
    return [value for value in means if math.isfinite(value)]


def draw_severities(rows: Sequence[Row]) -> Figure:
    """Draw AUROC over the severity of each corruption: a line of medians over seeds for each method."""
    trained = [row for row in rows if not row["control"] and row["label"] == rows[0]["label"]]
    outputs = labels(trained, "output")
    figure, axes = drawing.figure(0.9 + 1.6 * len(outputs), len(outputs), len(CORRUPTIONS), sharex=True, sharey=True)
    for output, line in zip(outputs, axes, strict=True):
        of = [row for row in trained if row["output"] == output]
        for corruption, one in zip(CORRUPTIONS, line, strict=True):
            for method, colour in OVER_SEVERITIES.items():
                found = [_of_seeds(of, method, [severity_name(corruption, severity)]) for severity in SEVERITIES]
                one.plot(
                    SEVERITIES, [median(of_seeds or [math.nan]) for of_seeds in found], color=colour, linewidth=1.6
                )
            one.axhline(0.5, color=drawing.GREY, linewidth=0.8)
            one.set_title(corruption)
        line[0].set_ylabel(f"AUROC, {output}")
    for one in axes[-1]:
        one.set_xlabel("severity")
        one.set_xticks(SEVERITIES)
    drawing.legend(figure, OVER_SEVERITIES)
    return figure


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Draw what can be drawn, by name."""
    severe = {"severities": draw_severities(rows)} if set(CORRUPTIONS) <= set(columns(rows)) else {}
    return {"sets": draw_sets(rows), **severe}
