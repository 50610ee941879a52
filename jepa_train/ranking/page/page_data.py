"""The table of a ranking as the page reads it: numbers in base64, repeated texts once."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jepa_train.ranking.columns import COLUMNS
from jepa_train.ranking.page.sprites import SIDE
from jepa_train.ranking.table import numbers

MISSING = -1


def page_data(
    table: pa.Table, *, places: NDArray[np.int32], images: str | None, summary: Mapping[str, Any], rows: int
) -> dict[str, Any]:
    """Gather all that the page shows, in plain types.

    Args:
        table: images of the page, N of them, with the columns of a ranking.
        places: places (N,) of the thumbnails, from ``write_sprites``.
        images: path from the page to the folder of the originals; none where there is nothing to link to.
        summary: facts about the ranking, among them ``warnings``, sentences.
        rows: images of the whole ranking, N or more.
    """
    names = table.column("filename").to_pylist()
    return {
        "rows": rows,
        "filename": names,
        "numbers": [
            {
                "name": column.name,
                "meaning": column.meaning,
                "typical": column.typical,
                "values": encoded(numbers(table[column.name])),
            }
            for column in COLUMNS
            if column.is_number and column.name in table.column_names
        ],
        "class": coded_column(table, "class"),
        "reason": coded_column(table, "reason"),
        "nearest": nearest_rows(table, names),
        "places": encoded(places),
        "side": SIDE,
        "images": images,
        "summary": dict(summary),
    }


def encoded(values: NDArray[Any]) -> str:
    """Write an array as base64 of its little-endian bytes, which a browser reads into a typed array."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def coded_column(table: pa.Table, name: str) -> dict[str, Any] | None:
    """Number the different texts of a column (N,), by the order of the texts; none without a text.

    Returns:
        ``texts``, and ``codes``: their numbers by row, -1 where a text is missing.
    """
    return coded(table.column(name).to_pylist()) if name in table.column_names else None


def coded(column: Sequence[str | None]) -> dict[str, Any] | None:
    """Number the different texts (N,), see :func:`coded_column`."""
    texts = sorted({text for text in column if text is not None})
    if not texts:
        return None
    codes_of = {text: code for code, text in enumerate(texts)}
    codes = [MISSING if text is None else codes_of[text] for text in column]
    return {"texts": texts, "codes": encoded(np.array(codes, np.int32))}


def nearest_rows(table: pa.Table, names: Sequence[str]) -> dict[str, Any] | None:
    """Find the row of each image's nearest one; a name where that is not on the page (it may be in the reference)."""
    if "nearest_filename" not in table.column_names:
        return None
    row_of = {name: row for row, name in enumerate(names)}
    nearest = table.column("nearest_filename").to_pylist()
    rows = np.array([row_of.get(name, MISSING) for name in nearest], np.int32)
    elsewhere = [None if row != MISSING else name for name, row in zip(nearest, rows, strict=True)]
    return {"rows": encoded(rows), "elsewhere": coded(elsewhere)}
