"""Fidelity depends on convergence and on the anti-collapse weight: the ranking against what training shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jepa_monitor.ranking import spearman
from study import drawing
from study.readings import LAST, Encoder, losses, read, step_of
from study.rows import Row, Study, labels, middle, table
from study.scores import ranking

RUNS = {
    "0": "study none",
    "0.03": "study weight=0.03",
    "0.1": "study weight=0.1",
    "0.3": "study K=8",
    "1": "study weight=1",
}
COLOURS = dict(zip(RUNS, drawing.SHADES, strict=True))
CHECKPOINTS = ("step_0", "step_50", "step_150", "step_400", LAST)
# what might tell how well an encoder ranks; lower is better in all
SIGNS = {"prediction loss": "prediction", "anti-collapse loss": "anticollapse", "Gaussianity ratio": "Gaussianity"}
SCORES = {"own density": "own", "N(0, I)": "gaussian"}


def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Read one checkpoint."""
    lost = losses(encoder, seed, runs)
    row = {"label": encoder.label, "step": step_of(encoder, seed, runs), "seed": seed}
    row["prediction"] = lost.get("loss_tokens", math.nan) + lost.get("loss_embedding", math.nan)
    row["anticollapse"] = lost.get("loss_anticollapse", math.nan)
    return [row | ranking(read(encoder, seed, runs))]


def tables(rows: Sequence[Row]) -> str:
    """Print what training ends with for each weight, and which sign goes with the ranking."""
    ends = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    columns: Mapping[str, Mapping[str, Any]] = {
        title: {"column": column} for title, column in (SIGNS | SCORES | {"Eq. 5": "Eq. 5"}).items()
    }
    return f"{table(ends, 'weight', columns)}\n\n{_correlations(rows)}"


def _correlations(rows: Sequence[Row]) -> str:
    """Print the rank correlation of each sign, turned so that more is better, with each score's ranking."""
    trained = [row for row in rows if row["step"]]
    ends = [row for row in trained if row["step"] == max(row["step"] for row in rows)]
    groups = {"all checkpoints": trained, "the last of each run": ends}
    lines = [["rank correlation with", *(f"{score}, {group}" for score in SCORES for group in groups)]]
    lines.append(["---"] * len(lines[0]))
    for title, sign in SIGNS.items():
        found = [_correlation(group, sign, column) for column in SCORES.values() for group in groups.values()]
        lines.append([f"minus the {title}", *(f"{value:.2f}" for value in found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _correlation(rows: Sequence[Row], sign: str, score: str) -> float:
    pairs = [(-row[sign], row[score]) for row in rows if math.isfinite(row[sign]) and math.isfinite(row[score])]
    return spearman([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the ranking against steps, and against each sign: a line a weight, from the first checkpoint to the last."""
    figure, (axes,) = drawing.figure(3.2, 1, 4, sharey=True)
    for (title, sign), one in zip({"optimizer step": "step", **SIGNS}.items(), axes, strict=True):
        for weight in labels(rows):
            _path(one, [row for row in rows if row["label"] == weight], sign, COLOURS[weight])
        one.set_xlabel(title)
        drawing.log_scale(one)
    axes[0].set_ylabel("rank correlation with the truth\n(own density)")
    drawing.legend(figure, {f"weight {weight}": COLOURS[weight] for weight in labels(rows)})
    return figure


def _path(axes: Axes, rows: Sequence[Row], sign: str, colour: str) -> None:
    steps = [step for step in labels(rows, "step") if step]
    points = [(middle(rows, sign, step=step), middle(rows, "own", step=step)) for step in steps]
    axes.plot(*zip(*points, strict=True), "-", color=colour, linewidth=1.6)
    axes.scatter(*zip(*points, strict=True), s=[8 + 6 * index for index in range(len(points))], color=colour, zorder=3)


STUDY = Study(
    tuple(Encoder(weight, run, checkpoint) for weight, run in RUNS.items() for checkpoint in CHECKPOINTS),
    measure,
    tables,
    draw,
)
