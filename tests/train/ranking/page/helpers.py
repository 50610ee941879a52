"""A small ranking with everything that a page has to show, and its images on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from jepa_train.ranking.page import write_page

HOSTILE = (
    "<script>window.hacked=1<\u2215script>.png",
    'it\'s "quoted" & 100% sure?#x.png',
    "two\nlines \u65e5\u672c\u8a9e \U0001f600.png",
)
REASON = "the image file is truncated <b>(12 bytes)</b>"


@dataclass(frozen=True)
class Page:
    """A written page.

    Attributes:
        folder: place of ``index.html``.
        table: what it shows.
    """

    folder: Path
    table: pa.Table

    @property
    def data(self) -> dict[str, Any]:
        """The content of ``data.js``."""
        return read_data(self.folder)

    def column(self, name: str) -> list[Any]:
        """Values of a column, in the table's order."""
        return list(self.table.column(name).to_pylist())

    def by(self, name: str, *, descending: bool = False) -> list[str]:
        """File names in the order of a column of numbers; those without a value last."""
        values = self.column(name)
        present = [row for row, value in enumerate(values) if value is not None]
        missing = [row for row, value in enumerate(values) if value is None]
        present.sort(key=lambda row: values[row], reverse=descending)
        return [self.column("filename")[row] for row in [*present, *missing]]


def read_data(folder: Path) -> dict[str, Any]:
    """Read ``data.js``, which is JSON after a name and before a semicolon."""
    text = (folder / "page" / "data.js").read_text("ascii")
    assert text.startswith("const DATA = ")
    assert text.endswith(";\n")
    return dict(json.loads(text.removeprefix("const DATA = ").removesuffix(";\n")))


def square(colour: tuple[int, int, int], side: int = 64) -> bytes:
    """Encode a picture of one colour."""
    encoded = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(encoded, "PNG")
    return encoded.getvalue()


def small_page(root: Path, *, without: Sequence[str] = ()) -> Page:
    """Write 60 images of three classes, three of them with hostile names, and their page, without some columns."""
    images, folder = root / "my photos 100%", root / "ranked"
    names, thumbnails = [], []
    for row in range(60):
        label = ("cat", "dog", "tabby & co")[row % 3]
        name = f"{label}/{HOSTILE[row] if row < len(HOSTILE) else f'{row:02d}.png'}"
        thumbnails.append(square((4 * row, 120, 255 - 4 * row)))
        (images / label).mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(square((4 * row, 120, 255 - 4 * row), side=300))
        names.append(name)
    folder.mkdir()
    table = small_table(names).drop_columns(list(without))
    summary = {
        "encoder": "vit_small<b>",
        "dimension": 7.25,
        "preparation": {"input_size": [3, 224, 224], "pooling": "mean"},
        "notes": ["The first note.", "The second note."],
        "spectrum": [0.5] * 64,
        "warnings": ["Scores follow complexity: <i>Spearman</i> with compressed_size is -0.83."],
    }
    write_page(folder, table, thumbnails=[*thumbnails[:59], None], images="../my photos 100%", summary=summary)
    return Page(folder, table)


def small_table(names: list[str]) -> pa.Table:
    """Make up numbers: the last row has none but its compressed size, rows 10 and 20 are duplicates of two classes."""
    count = len(names)
    random = np.random.default_rng(0)
    density = random.normal(size=count) * 5 - 40
    density[30] = -190.5  # far below all others
    nearest = [names[(row + 3) % count] for row in range(count)]
    distances = random.uniform(1.0, 2.0, count)
    nearest[10], nearest[20], distances[[10, 20]] = names[20], names[10], 0.0
    nearest[5], distances[5] = "reference/elsewhere.png", 0.05
    differences = 20.0 * distances
    last = count - 1

    def without_last(values: Any) -> list[Any]:
        return [None if row == last else value for row, value in enumerate(values)]

    return pa.table(
        {
            "filename": names,
            "class": [name.split("/")[0] for name in names],
            "log_density": pa.array(without_last(map(float, density)), pa.float64()),
            "mahalanobis": pa.array(without_last(map(float, -density + 1)), pa.float64()),
            "compressed_size": pa.array(random.integers(300, 4000, count), pa.int64()),
            "percentile": pa.array(without_last(map(float, density.argsort().argsort() / count * 100)), pa.float64()),
            "nearest_filename": without_last(nearest),
            "nearest_distance": pa.array(without_last(map(float, distances)), pa.float64()),
            "nearest_difference": pa.array(without_last(map(float, differences)), pa.float64()),
            "reason": [REASON if row == last else None for row in range(count)],
        }
    )
