"""Rows of numbers: one for each seed of what is compared, kept as JSON, and printed as tables of their medians."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from study.readings import Encoder

Row = Mapping[str, Any]
DIGITS = 4


@dataclass(frozen=True)
class Study:
    """One question.

    Attributes:
        encoders: what it reads.
        measure: rows of one seed of an encoder, from the folder of runs.
        tables: the tables of the study's page in docs/studies, from all rows.
        draw: the figure, from all rows.
    """

    encoders: tuple[Encoder, ...]
    measure: Callable[[Encoder, int, Path], list[dict[str, Any]]]
    tables: Callable[[Sequence[Row]], str]
    draw: Callable[[Sequence[Row]], Figure]


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows, one a line, with four digits; a number that is not finite becomes null."""
    lines = [json.dumps({name: plain(value) for name, value in row.items()}, ensure_ascii=False) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def read(path: Path) -> list[Row]:
    """Read what :func:`write` wrote; null becomes NaN."""
    rows: list[Row] = json.loads(path.read_text())
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]


def plain(value: Any) -> Any:
    """Keep four digits of a number; one that is not finite becomes ``None``."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def values(rows: Sequence[Row], column: str, **chosen: Any) -> list[float]:
    """Return a column's finite values in the rows that have what was chosen."""
    found = [
        row[column] for row in rows if column in row and all(row.get(key) == value for key, value in chosen.items())
    ]
    return [value for value in found if math.isfinite(value)]


def by_label(rows: Sequence[Row], column: str, names: Sequence[Any], **chosen: Any) -> list[list[float]]:
    """Return :func:`values` for each label."""
    return [values(rows, column, label=name, **chosen) for name in names]


def middle(rows: Sequence[Row], column: str, **chosen: Any) -> float:
    """Return the median over seeds; NaN where there is none."""
    return median(values(rows, column, **chosen) or [math.nan])


def labels(rows: Sequence[Row], column: str = "label") -> list[Any]:
    """Return the different values of a column, in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def cell(found: Sequence[float]) -> str:
    """Print the median and, in brackets, the range; a dash for nothing."""
    if not found:
        return "-"
    shown = f"{median(found):.3g}"
    return shown if len(found) == 1 else f"{shown} ({min(found):.3g}-{max(found):.3g})"


def table(rows: Sequence[Row], first: str, columns: Mapping[str, Mapping[str, Any]], key: str = "label") -> str:
    """Print a Markdown table with a line for each label and its number of seeds.

    Args:
        rows: one for each seed and label.
        first: title of the labels.
        columns: titles, and for each the column of the rows and what chooses them, as in :func:`values`.
        key: column of the labels.
    """
    lines = [[first, "seeds", *columns]]
    for label in labels(rows, key):
        seeds = {row["seed"] for row in rows if row[key] == label}
        cells = [cell(values(rows, **{key: label}, **chosen)) for chosen in columns.values()]
        lines.append([str(label), str(len(seeds)), *cells])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
