"""Density and volume, each alone and both together, within the distribution and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from study import drawing
from study.readings import Encoder, read
from study.rows import Row, Study, by_label, labels, table
from study.scores import detection, ranking

KNOWN = {
    "2 factors": "mixture r=2 K=2",
    "2 factors, separation 3": "mixture r=2 K=2 separation 3",
    "4 factors": "mixture r=4 K=8",
    "8 factors": "mixture r=8 K=16",
    "shapes": "shapes",
}
REAL = "fashion_mnist"
NAMES = {"mnist": "MNIST"}
OUTPUTS = {"z": "z", "tokens": "mean token"}
# title, column, colour
PARTS = {
    "both": ("own", drawing.BLUE),
    "density alone": ("own density alone", drawing.GREEN),
    "volume alone": ("own volume alone", drawing.PURPLE),
}
WITHIN, OUT = "within", "out"


def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Read one output of one encoder: a row for the known density, or one for each other set of images."""
    reading = read(encoder, seed, runs)
    about = {"seed": seed, "output": encoder.output}
    if reading.truth is not None:
        return [about | {"label": encoder.label, "kind": WITHIN, **ranking(reading)}]
    found = detection(reading)
    return [about | {"label": NAMES.get(name, name), "kind": OUT, **scores} for name, scores in found.items()]


def tables(rows: Sequence[Row]) -> str:
    """Print rank correlations, then AUROC."""
    columns = {
        f"{name}: {title}": {"column": column, "output": output}
        for output, name in OUTPUTS.items()
        for title, (column, _) in PARTS.items()
    }
    firsts = {WITHIN: "images of known density", OUT: "Fashion-MNIST against"}
    found = [[row for row in rows if row["kind"] == kind] for kind in firsts]
    return "\n\n".join(table(part, first, columns) for part, first in zip(found, firsts.values(), strict=True) if part)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a line of dots for each set of images: above within the distribution, below out of it."""
    figure, axes = drawing.figure(5.4, 2, 2, sharex="row", sharey="row")
    titles = {WITHIN: "rank correlation with the truth", OUT: "AUROC of Fashion-MNIST against others"}
    for (kind, title), line in zip(titles.items(), axes, strict=True):
        names = labels([row for row in rows if row["kind"] == kind])
        for (output, name), one in zip(OUTPUTS.items(), line, strict=True):
            parts = {colour: by_label(rows, column, names, output=output) for column, colour in PARTS.values()}
            drawing.dots(one, names, parts)
            one.set_xlabel(title)
            one.set_title(name)
    for one in axes[1]:
        one.axvline(0.5, color=drawing.GREY, linewidth=0.8)
    drawing.legend(figure, {title: colour for title, (_, colour) in PARTS.items()})
    return figure


STUDY = Study(
    tuple(Encoder(label, run, output=output) for label, run in {**KNOWN, REAL: REAL}.items() for output in OUTPUTS),
    measure,
    tables,
    draw,
)
