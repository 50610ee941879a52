"""Tables of encoders of many objectives: detection of each, and forecasts of inversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.rows import labels, values

from detect import inversion
from detect.methods import DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS
from detect.page import markdown, number
from detect.sets import NULL

Row = Mapping[str, Any]
SHOWN = (DEFAULT, DENSITY_ALONE, KNN, MAHALANOBIS, *inversion.SCORES)
JUDGED = ("MNIST", "digits", "upside down")


def tables(rows: Sequence[Row]) -> str:
    """Print the AUROC of every objective, and how often inversion is forecast rightly."""
    sets = [name for name in labels(rows, "set") if name != NULL]
    found = [f"**AUROC against {name}**\n\n{against(rows, name)}" for name in sets[:2]]
    found.append(f"**AUROC of `{DEFAULT}` / {KNN} against other sets**\n\n{others(rows, sets[2:])}")
    judged = [name for name in JUDGED if name in sets]
    return "\n\n".join([*found, f"**Forecasts of inversion**\n\n{forecasts(rows, judged)}"])


def _encoders(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows of each objective and output, with the number of seeds in their title."""
    found = []
    for label in labels(rows):
        for output in labels(rows, "output"):
            of = [row for row in rows if (row["label"], row["output"]) == (label, output)]
            if of:
                found.append((f"{label}, {output} ({len(labels(of, 'encoder'))})", of))
    return found


def against(rows: Sequence[Row], name: str) -> str:
    """Print medians over seeds of every method."""
    lines = [
        [title, *(number(values(of, "auroc", method=method, set=name)) for method in SHOWN)]
        for title, of in _encoders(rows)
    ]
    return markdown(["encoder, output (seeds)", *SHOWN], lines)


def others(rows: Sequence[Row], sets: Sequence[str]) -> str:
    """Print medians over seeds of the default and of its bar, for each set."""
    lines = []
    for title, of in _encoders(rows):
        pairs = [[number(values(of, "auroc", method=method, set=name)) for method in (DEFAULT, KNN)] for name in sets]
        lines.append([title, *(" / ".join(pair) for pair in pairs)])
    return markdown(["encoder, output (seeds)", *sets], lines)


def forecasts(rows: Sequence[Row], sets: Sequence[str]) -> str:
    """Print for each set how many scores invert, and the share of right forecasts by each rule."""
    lines = []
    for name in sets:
        cases = inversion.cases_of(rows, name)
        found = {
            f"{inversion.FIXED} below 0": inversion.fixed(cases),
            **{f"{feature}, threshold": inversion.left_out(cases, [feature]) for feature in inversion.FEATURES},
            "best of them": inversion.left_out(cases, inversion.FEATURES),
        }
        counts = f"{sum(case.inverted for case in cases)} of {len(cases)}"
        lines.append([name, counts, *(number([inversion.share_right(one, cases)]) for one in found.values())])
    return markdown(["", "inverted", *found], lines)
