"""The files of a page: what is written, in which order, and for how many images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jepa_train.ranking.page import write_page
from jepa_train.ranking.page.writing import typicality_order
from tests.train.ranking.page.helpers import HOSTILE, Page, read_data, square


def test_everything_that_the_page_names_is_there(ranked: Page) -> None:
    html = (ranked.folder / "index.html").read_text()
    named = {part.split('"')[0] for part in html.split('="page/')[1:]}
    assert named == {path.name for path in (ranked.folder / "page").iterdir()} - {"sprite_0.jpg"}
    assert "//" not in html  # nothing from elsewhere


def test_texts_are_no_markup(ranked: Page) -> None:
    """They stand in a script as JSON in ASCII, never in the HTML."""
    script = (ranked.folder / "page" / "data.js").read_text("ascii")
    html = (ranked.folder / "index.html").read_text()
    for name in HOSTILE:
        assert json.dumps(name)[1:-1] in script
        assert name not in html


def test_a_page_is_written_over_an_earlier_one(tmp_path: Path) -> None:
    for count in (150, 2):
        table = pa.table({"filename": [f"{row}.png" for row in range(count)], "log_density": np.arange(float(count))})
        write_page(tmp_path, table, thumbnails=[square((0, 0, 0))] * count, images=None, summary={})
    assert read_data(tmp_path)["filename"] == ["0.png", "1.png"]
    assert [path.name for path in (tmp_path / "page").glob("sprite*")] == ["sprite_0.jpg"]


def test_a_file_that_cannot_be_written_is_named_and_no_page_appears(tmp_path: Path) -> None:
    (tmp_path / "page" / "data.js").mkdir(parents=True)
    table = pa.table({"filename": ["a.png"], "log_density": [1.0]})
    with pytest.raises(OSError, match=r"data\.js"):
        write_page(tmp_path, table, thumbnails=[None], images=None, summary={})
    assert not (tmp_path / "index.html").exists()


def test_of_too_many_images_both_ends_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_train.ranking.page.writing.MOST_ROWS", 4)
    density = [5.0, 1.0, None, 3.0, 9.0, 7.0]
    table = pa.table({"filename": list("abcdef"), "log_density": density, "nearest_filename": list("bcdefa")})
    thumbnails = (square((40 * row, 0, 0)) for row in range(6))
    write_page(tmp_path, table, thumbnails=thumbnails, images=None, summary={})
    data = read_data(tmp_path)
    assert (data["filename"], data["rows"]) == (["b", "d", "e", "f"], 6)
    assert data["nearest"]["elsewhere"]["texts"] == ["a", "c"]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ({"log_density": [2.0, None, 1.0, 9.0]}, [2, 0, 1, 3]),  # without a value: in the middle
        ({"mahalanobis": [1.0, 3.0, 2.0, 4.0]}, [3, 1, 2, 0]),
        ({"log_density": [None] * 4, "knn_distance": [1.0, 2.0, 3.0, 4.0]}, [3, 2, 1, 0]),
        ({"compressed_size": [4, 3, 2, 1]}, [0, 1, 2, 3]),
    ],
)
def test_the_first_score_with_values_orders(columns: dict[str, list[float | None]], order: list[int]) -> None:
    table = pa.table({"filename": list("abcd"), **columns})
    assert typicality_order(table).tolist() == order


def test_an_empty_table_has_a_page(tmp_path: Path) -> None:
    table = pa.table({"filename": pa.array([], pa.string()), "log_density": pa.array([], pa.float64())})
    write_page(tmp_path, table, thumbnails=[], images=None, summary={})
    assert read_data(tmp_path)["filename"] == []
