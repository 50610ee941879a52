"""Objectives side by side: the score is tried on encoders that no anti-collapse term has shaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from study import drawing
from study.readings import LAST, Encoder, read
from study.rows import Row, Study, by_label, labels, table
from study.scores import ranking

RUNS = {
    "SIGReg": "study K=8",
    "VICReg": "study vicreg",
    "Barlow Twins": "study barlow",
    "weight decay": "study weight decay",
    "spectral norm": "study spectral norm",
    "no anti-collapse": "study none",
    "EMA alone": "study EMA alone",
    "supervised": "study supervised",
    "random weights": "study K=8",
}
OUTPUTS = {"z": "z", "tokens": "mean token"}
SCORES = {
    "own density": ("own", drawing.BLUE),
    "N(0, I)": ("gaussian", drawing.ORANGE),
    "Eq. 5": ("Eq. 5", drawing.PURPLE),
}


def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Read one output of one objective's encoder."""
    about = {"label": encoder.label, "output": encoder.output, "seed": seed}
    return [about | ranking(read(encoder, seed, runs))]


def tables(rows: Sequence[Row]) -> str:
    """Print a line for each objective."""
    columns = {
        f"{name}: {title}": {"column": column, "output": output}
        for output, name in OUTPUTS.items()
        for title, (column, _) in SCORES.items()
    }
    gaussianity = {"z: Gaussianity ratio": {"column": "Gaussianity", "output": "z"}}
    return table(rows, "objective", columns | gaussianity)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a line of dots for each objective: seeds small, their median large."""
    figure, (axes,) = drawing.figure(3.8, 1, 2, sharey=True, sharex=True)
    names = labels(rows)
    for (output, title), one in zip(OUTPUTS.items(), axes, strict=True):
        scores = {colour: by_label(rows, column, names, output=output) for column, colour in SCORES.values()}
        drawing.dots(one, names, scores)
        one.set_title(title)
        one.set_xlabel("rank correlation with the truth")
        one.axvline(0.0, color=drawing.GREY, linewidth=0.8)
    drawing.legend(figure, {title: colour for title, (_, colour) in SCORES.items()})
    return figure


STUDY = Study(
    tuple(
        Encoder(label, run, "step_0" if label == "random weights" else LAST, output)
        for label, run in RUNS.items()
        for output in OUTPUTS
    ),
    measure,
    tables,
    draw,
)
