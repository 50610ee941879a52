"""Sheets of thumbnails: each picture at the place that is returned for its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_train.ranking.page.sprites import SIDE, TILE, write_sprites
from tests.train.ranking.page.helpers import square


def pixel(folder: Path, place: int) -> tuple[int, ...]:
    """Colour in the middle of a thumbnail."""
    sheet, within = divmod(place, SIDE**2)
    row, column = divmod(within, SIDE)
    with Image.open(folder / f"sprite_{sheet}.jpg") as picture:
        return tuple(np.asarray(picture)[row * TILE + TILE // 2, column * TILE + TILE // 2])


def test_each_row_finds_its_picture(tmp_path: Path) -> None:
    count = SIDE**2 + 7
    colours = [(row, 255 - row, 60) for row in range(count)]
    order = np.random.default_rng(0).permutation(count)
    places = write_sprites(tmp_path, (square(colour) for colour in colours), order)
    assert places[order].tolist() == list(range(count))  # neighbours in the order are neighbours on a sheet
    for row, colour in enumerate(colours):
        assert np.allclose(pixel(tmp_path, int(places[row])), colour, atol=6), row
    with Image.open(tmp_path / "sprite_1.jpg") as last:
        assert last.size == (SIDE * TILE, TILE)


def test_rows_without_a_picture_have_no_place(tmp_path: Path) -> None:
    thumbnails = [None, square((200, 0, 0)), b"not a picture", square((0, 0, 200))[:40], square((0, 200, 0))]
    places = write_sprites(tmp_path, thumbnails, np.arange(5))
    assert places.tolist() == [-1, 0, -1, -1, 3]
    assert np.allclose(pixel(tmp_path, 3), (0, 200, 0), atol=6)


def test_pictures_of_other_sizes_fill_their_place(tmp_path: Path) -> None:
    write_sprites(tmp_path, [square((250, 250, 250), side=200), square((250, 250, 250), side=8)], np.arange(2))
    for place in (0, 1):
        assert np.allclose(pixel(tmp_path, place), (250, 250, 250), atol=6)


def test_sheets_of_an_earlier_page_are_removed(tmp_path: Path) -> None:
    write_sprites(tmp_path, [square((0, 0, 0))] * (SIDE**2 + 1), np.arange(SIDE**2 + 1))
    write_sprites(tmp_path, [square((0, 0, 0))], np.arange(1))
    assert [path.name for path in tmp_path.iterdir()] == ["sprite_0.jpg"]
    write_sprites(tmp_path, [None], np.arange(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [2, 4])
def test_as_many_thumbnails_as_rows(given: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{given} thumbnails were given for 3 rows\.$"):
        write_sprites(tmp_path, [square((0, 0, 0))] * given, np.arange(3))
