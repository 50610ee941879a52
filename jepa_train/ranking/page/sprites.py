"""Thumbnails in sheets of a hundred, so that a page of 50,000 images has 500 files of pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jepa_train.checkpoints.files import written_whole
from jepa_train.data.transforms import UNREADABLE, to_rgb

TILE = 64  # pixels a side; a multiple of 16, so that no block of JPEG reaches into two thumbnails
SIDE = 10  # thumbnails in a row and in a column of a sheet
NO_PICTURE = -1


def write_sprites(folder: Path, thumbnails: Iterable[bytes | None], order: NDArray[np.int64]) -> NDArray[np.int32]:
    """Write ``sprite_0.jpg``, ``sprite_1.jpg``, ... and remove those of an earlier page.

    Neighbours in ``order`` share a sheet: what is shown together is loaded together. Thumbnails arrive in another
    order, one at a time, and wait in a temporary file.

    Args:
        folder: existing place of the sheets.
        thumbnails: encoded pictures of rows 0, 1, ..., of any size and mode; none where there is no picture.
        order: every row (N,), in the order of the sheets.

    Returns:
        Places (N,), by row: ``SIDE`` squared times the sheet, plus the place on it by rows; -1 without a picture.

    Raises:
        ValueError: if there are more or fewer thumbnails than rows.
    """
    with TemporaryFile() as waiting:
        spans = [_store(waiting, thumbnail) for thumbnail in thumbnails]
        if len(spans) != len(order):
            raise ValueError(f"{len(spans)} thumbnails were given for {len(order)} rows.")
        drawn = [int(row) for row in order if spans[row][1] > 0]
        places = np.full(len(order), NO_PICTURE, np.int32)
        places[drawn] = np.arange(len(drawn))
        per_sheet = SIDE**2
        sheets = range(0, len(drawn), per_sheet)
        for sheet, start in enumerate(sheets):
            rows = drawn[start : start + per_sheet]
            pictures = [_picture(waiting, spans[row]) for row in rows]
            places[[row for row, picture in zip(rows, pictures, strict=True) if picture is None]] = NO_PICTURE
            _write_sheet(folder / f"sprite_{sheet}.jpg", pictures)
    remove_sprites(folder, first=len(sheets))
    return places


def _store(waiting: BinaryIO, thumbnail: bytes | None) -> tuple[int, int]:
    """Append a thumbnail; where it begins, and its length in bytes."""
    start = waiting.tell()
    waiting.write(thumbnail or b"")
    return start, len(thumbnail or b"")


def _picture(waiting: BinaryIO, span: tuple[int, int]) -> Image.Image | None:
    """Decode a stored thumbnail; none where it is damaged."""
    start, length = span
    waiting.seek(start)
    try:
        with Image.open(io.BytesIO(waiting.read(length))) as picture:
            picture.load()  # now, as it is closed here
            return to_rgb(picture)
    except UNREADABLE:
        return None


def _write_sheet(path: Path, pictures: Sequence[Image.Image | None]) -> None:
    sheet = Image.new("RGB", (SIDE * TILE, -(-len(pictures) // SIDE) * TILE))
    for place, picture in enumerate(pictures):
        if picture is not None:
            square = picture if picture.size == (TILE, TILE) else _on_square(picture)
            sheet.paste(square, (place % SIDE * TILE, place // SIDE * TILE))
    with written_whole(path) as file:
        sheet.save(file, "JPEG", quality=85)


def _on_square(picture: Image.Image) -> Image.Image:
    """Fit a whole picture into the middle of a thumbnail."""
    scale = TILE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new("RGB", (TILE, TILE))
    square.paste(picture.resize((width, height)), ((TILE - width) // 2, (TILE - height) // 2))
    return square


def remove_sprites(folder: Path, *, first: int = 0) -> None:
    """Remove the sheets of an earlier page, from number ``first`` on."""
    number = first
    while (path := folder / f"sprite_{number}.jpg").exists():
        path.unlink()
        number += 1
