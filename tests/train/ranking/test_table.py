"""Percentiles, files of tables and their places."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.table import percentiles, place_of, read_table, write_table


def test_percentiles_are_among_the_finite_and_shared_by_ties() -> None:
    scores = np.array([3.0, 1.0, np.nan, 1.0, 7.0])
    np.testing.assert_allclose(percentiles(scores), [62.5, 25.0, np.nan, 25.0, 87.5])
    assert np.nanmean(percentiles(scores)) == 50.0


def test_percentiles_within_classes() -> None:
    classes = pa.chunked_array([["a", "b", None], ["a", "b"]])
    found = percentiles(np.array([3.0, 1.0, 5.0, 1.0, np.nan]), classes)
    np.testing.assert_allclose(found, [75.0, np.nan, np.nan, 25.0, np.nan])


NAMES = ["plain.png", 'quo"te, comma.png', "new\nline.png", "ünïcode/日本.png", "<script>.png", " space .png"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_files_are_read_back_and_opened_by_others(suffix: str, tmp_path: Path) -> None:
    count = len(NAMES)
    table = pa.table(
        {
            "filename": NAMES,
            "log_density": pa.array([1.5, None, -1e300, 1e-300, 0.1, 3.0]),
            "compressed_size": pa.array([1, None, 3, 4, 5, 6], pa.int64()),
            "reason": pa.array([None, "it is, so to say, broken", *[None] * (count - 2)], pa.string()),
        }
    )
    path = tmp_path / f"table.{suffix}"
    write_table(path, table)
    assert read_table(path).equals(table)
    frame = pd.read_parquet(path) if suffix == "parquet" else pd.read_csv(path)
    assert frame["filename"].tolist() == NAMES
    query = f"select filename from '{path}' where log_density is not null"
    assert [row[0] for row in duckdb.sql(query).fetchall()] == NAMES[:1] + NAMES[2:]


MISTAKABLE = ["NA", "null", "nan", "None", "NULL", "1", "001", "true", "a, b", 'quo"te', "new\nline", " space ", "-"]


@pytest.mark.parametrize("classes", [MISTAKABLE, ["001", "002", "1"], ["true", "false"], ["NA", "N/A"], ["2024-01-01"]])
def test_classes_of_any_name_are_read_from_csv_as_the_docs_say(classes: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ranked.csv"
    density = pa.array([None, *[0.5] * (len(classes) - 1)], pa.float64())
    table = pa.table({"filename": [f"{name}/a" for name in classes], "class": classes, "log_density": density})
    write_table(path, table)
    assert read_table(path).equals(table)

    frame = pd.read_csv(path, dtype={"class": str}, keep_default_na=False, na_values=[""])
    assert frame["class"].tolist() == classes
    assert frame["log_density"].isna().tolist() == [True, *[False] * (len(classes) - 1)]

    rows = duckdb.sql(f"from read_csv('{path}', types={{'class': 'VARCHAR'}})").fetchall()
    assert [row[1] for row in rows] == classes
    assert rows[0][2] is None

    converted = csv.ConvertOptions(column_types={"class": pa.string()})
    read = csv.read_csv(path, convert_options=converted, parse_options=csv.ParseOptions(newlines_in_values=True))
    assert read["class"].to_pylist() == classes
    assert read["log_density"].null_count == 1


def test_places_of_outputs(tmp_path: Path) -> None:
    assert place_of(Path("out")) == (Path("out/ranking.parquet"), Path("out"))
    assert place_of(Path("a/b.csv")) == (Path("a/b.csv"), Path("a/b"))
    (tmp_path / "file").touch()
    for wrong in ("file", "out.tsv", "out.csv.gz", "out.CSV"):
        with pytest.raises(ConfigurationError, match="name a folder, or a file ending in"):
            place_of(tmp_path / wrong)
