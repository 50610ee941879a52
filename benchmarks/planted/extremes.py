"""The least and most typical images of four classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from PIL import Image

SHOWN, EXTREMES = ("dress", "sandal", "bag", "boot"), 6  # classes, and images of each end


def draw(table: pa.Table, images: Path, file: Path) -> None:
    """Draw a line for each of four classes: its least typical images left, its most typical right."""
    figure = Figure(figsize=(9.0, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots(
        len(SHOWN), 2 * EXTREMES + 1, gridspec_kw={"width_ratios": [1] * EXTREMES + [0.6] + [1] * EXTREMES}
    )
    for line, name in zip(axes, SHOWN, strict=True):
        of_class = table.filter(pc.equal(table["class"], name)).sort_by("log_density")["filename"].to_pylist()
        for one in line:
            one.set_axis_off()
        for one, filename in zip(
            [*line[:EXTREMES], *line[-EXTREMES:]], [*of_class[:EXTREMES], *of_class[-EXTREMES:]], strict=True
        ):
            one.imshow(np.asarray(Image.open(images / filename)), cmap="gray", vmin=0, vmax=255)
        line[EXTREMES].text(
            0.5, 0.5, name, transform=line[EXTREMES].transAxes, ha="center", va="center", color="#808080"
        )
    for place, title in ((EXTREMES // 2, "least typical"), (EXTREMES + 1 + EXTREMES // 2, "most typical")):
        axes[0][place].set_title(title, color="#808080", fontsize=10)
    figure.savefig(file, transparent=True)
