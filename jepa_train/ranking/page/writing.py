"""The files of a page: data and sprites first, the HTML that shows them last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jepa_train.checkpoints.files import written_whole
from jepa_train.ranking.columns import BY_NAME
from jepa_train.ranking.page.page_data import page_data
from jepa_train.ranking.page.sprites import remove_sprites, write_sprites
from jepa_train.ranking.table import numbers
from jepa_train.ranking.workspace import INDEX, PAGE

DATA = "data.js"
MOST_ROWS = 100_000  # what a browser scrolls and sorts without a pause
BY_PREFERENCE = ("log_density", "embedding_log_density", "jepa_score", "mahalanobis", "knn_distance")


def write_page(
    folder: Path,
    table: pa.Table,
    *,
    thumbnails: Iterable[bytes | None],
    images: str | None,
    summary: Mapping[str, Any],
) -> None:
    """Write ``index.html`` and the folder ``page`` beside it; each file whole, ``index.html`` last.

    Of more than 100,000 images the page shows the least and the most typical, half and half, and says so.

    Args:
        folder: existing place of the page.
        table: one row an image (N rows), with ``filename`` and any further columns of a ranking.
        thumbnails: encoded pictures in the table's order, N of them, read one at a time; none where there is none.
        images: path of the folder of the originals, relative to ``folder``, with ``/`` between its parts; none without
            links to the originals.
        summary: facts in plain types, shown as they stand; ``warnings`` are sentences.

    Raises:
        ValueError: if there are more or fewer thumbnails than rows.
        OSError: naming the file, where the file system refuses it.
    """
    order = typicality_order(table)
    shown = np.sort(_ends(order, MOST_ROWS))
    if len(shown) < len(order):
        thumbnails = compress(thumbnails, np.isin(np.arange(len(order)), shown))
    on_page = table.take(shown)
    beside = folder / PAGE
    beside.mkdir(exist_ok=True)
    places = write_sprites(beside, thumbnails, typicality_order(on_page))
    data = page_data(on_page, places=places, images=images, summary=summary, rows=len(order))
    # a script, because a page opened from disk may not read other files; ASCII, because its encoding is then no matter
    _write(beside / DATA, f"const DATA = {json.dumps(data, separators=(',', ':'))};\n".encode())
    static = files(__package__) / "static"
    for source in static.iterdir():
        if source.name != INDEX:
            _write(beside / source.name, source.read_bytes())
    _write(folder / INDEX, (static / INDEX).read_bytes())


def remove_page(folder: Path) -> None:
    """Remove a page that :func:`write_page` wrote; other files stay."""
    index, beside = folder / INDEX, folder / PAGE
    if not (beside / DATA).is_file():
        return
    if index.is_file() and f"{PAGE}/{DATA}".encode() in index.read_bytes():
        index.unlink()
    remove_sprites(beside)
    for name in (*(source.name for source in (files(__package__) / "static").iterdir()), DATA):  # by which it is known
        (beside / name).unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or it holds other files
        beside.rmdir()


def typicality_order(table: pa.Table) -> NDArray[np.int64]:
    """Sort rows (N,) from the least to the most typical by the first score that has values.

    Rows without one stand in the middle, as they are known to be neither.
    """
    for name in BY_PREFERENCE:
        if name in table.column_names and not np.isnan(values := numbers(table[name])).all():
            known = np.where(np.isnan(values), np.nanmedian(values), values)
            return np.argsort(known * BY_NAME[name].typical, kind="stable")
    return np.arange(len(table))


def _ends(order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Take the first and the last half of ``most`` rows, or all of them where they are fewer."""
    return order if len(order) <= most else np.concatenate([order[: most // 2], order[-(most // 2) :]])


def _write(path: Path, content: bytes) -> None:
    with written_whole(path) as file:
        file.write(content)
