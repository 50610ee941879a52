"""Embedding sizes K from that of the factors up: the ranking, and the concentration of the norm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from study import drawing
from study.readings import Encoder, read
from study.rows import Row, Study, by_label, labels, table
from study.scores import norm_spread_of_gaussian, ranking

SIZES = (4, 8, 16, 32, 64, 128)
FACTORS = 4
LINES = {
    "own density": ("own", drawing.BLUE),
    "N(0, I)": ("gaussian", drawing.ORANGE),
    "Eq. 5": ("Eq. 5", drawing.PURPLE),
    "nearest neighbours alone": ("own density alone", drawing.GREEN),
}


def measure(encoder: Encoder, seed: int, runs: Path) -> list[dict[str, Any]]:
    """Read the last checkpoint."""
    return [{"label": int(encoder.label), "seed": seed, **ranking(read(encoder, seed, runs))}]


def tables(rows: Sequence[Row]) -> str:
    """Print a line for each size."""
    columns = {title: {"column": column} for title, (column, _) in LINES.items()}
    others = {"r found": "rank", "Gaussianity ratio": "Gaussianity", "spread of the norm": "norm spread"}
    return table(rows, "K", columns | {title: {"column": column} for title, column in others.items()})


def draw(rows: Sequence[Row]) -> Figure:
    """Draw rankings over K, and the spread of the norm beside that of N(0, I)."""
    figure, ((ranks, norms),) = drawing.figure(3.4, 1, 2, width_ratios=(3, 2))
    sizes = labels(rows)
    ends = {}
    for title, (column, colour) in LINES.items():
        ends[title] = (drawing.line(ranks, sizes, by_label(rows, column, sizes), colour), colour)
    ranks.set_ylabel("rank correlation with the truth")
    drawing.label_ends(ranks, ends)
    last = drawing.line(norms, sizes, by_label(rows, "norm spread", sizes), drawing.BLUE)
    last_gaussian = drawing.line(norms, sizes, [[norm_spread_of_gaussian(size)] for size in sizes], drawing.GREY)
    norms.set_ylabel("deviation of the norm over its mean")
    norms.set_ylim(bottom=0.0)
    drawing.label_ends(norms, {"whitened z": (last, drawing.BLUE), "N(0, I)": (last_gaussian, drawing.GREY)})
    for one in (ranks, norms):
        one.set_xscale("log", base=2)
        one.set_xticks(sizes, [str(size) for size in sizes])
        one.set_xlabel(f"embedding size K ({FACTORS} factors)")
    return figure


STUDY = Study(tuple(Encoder(str(size), f"study K={size}") for size in SIZES), measure, tables, draw)
