"""The content of data.js: the numbers of the table to the last bit, and each text."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jepa_train.ranking.page.page_data import coded, encoded, page_data
from jepa_train.ranking.table import numbers
from tests.train.ranking.page.helpers import Page


def decoded(text: str, kind: str) -> list[Any]:
    return list(np.frombuffer(base64.b64decode(text), kind).tolist())


def texts(column: dict[str, Any]) -> list[str | None]:
    """Texts by row."""
    return [None if code < 0 else column["texts"][code] for code in decoded(column["codes"], "<i4")]


def test_numbers_are_those_of_the_table(ranked: Page) -> None:
    columns = ranked.data["numbers"]
    for column in columns:
        found = [None if np.isnan(value) else value for value in decoded(column["values"], "<f8")]
        assert found == ranked.column(column["name"]), column["name"]
        assert column["meaning"]
    assert {column["name"]: column["typical"] for column in columns} == {
        "log_density": 1,
        "mahalanobis": -1,
        "compressed_size": 0,
        "percentile": 1,
        "nearest_distance": 0,
        "nearest_difference": 0,
    }


def test_texts_are_those_of_the_table(ranked: Page) -> None:
    data = ranked.data
    assert data["filename"] == ranked.column("filename")
    assert texts(data["class"]) == ranked.column("class")
    assert texts(data["reason"]) == ranked.column("reason")
    rows, elsewhere = decoded(data["nearest"]["rows"], "<i4"), texts(data["nearest"]["elsewhere"])
    nearest = [data["filename"][row] if row >= 0 else name for row, name in zip(rows, elsewhere, strict=True)]
    assert nearest == ranked.column("nearest_filename")


def test_what_a_table_lacks_is_left_out() -> None:
    table = pa.table({"filename": ["a.png", "b.png"], "reason": pa.array([None, None], pa.string())})
    data = page_data(table, places=np.array([-1, -1], np.int32), images=None, summary={}, rows=2)
    assert (data["numbers"], data["class"], data["reason"], data["nearest"]) == ([], None, None, None)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64(), pa.null()])
def test_missing_numbers_are_nan(kind: pa.DataType) -> None:
    values = [None, None] if kind == pa.null() else [3, None]
    table = pa.table({"log_density": pa.array(values, kind)})
    np.testing.assert_array_equal(numbers(table["log_density"]), np.array(values, np.float64))


def test_arrays_are_little_endian() -> None:
    assert base64.b64decode(encoded(np.array([1], ">i4"))) == b"\x01\x00\x00\x00"


def test_texts_are_numbered_in_their_order() -> None:
    column = coded(["b", None, "a", "b"])
    assert column is not None
    assert column["texts"] == ["a", "b"]
    assert texts(column) == ["b", None, "a", "b"]
    assert coded([None, None]) is None
