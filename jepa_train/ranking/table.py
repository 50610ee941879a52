"""The table of a ranking: parts put together, percentiles, and the file that holds it, Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray
from scipy.stats import rankdata

from jepa_train.checkpoints.files import written_whole
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.columns import BY_NAME, WITH_FOLDERS, Wanted
from jepa_train.ranking.doubt import doubt
from jepa_train.ranking.scores import nullable
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, SCORES, VOLUMES, Workspace

TABLE = "ranking.parquet"
SUFFIXES = (".parquet", ".csv")
OTHER_TABLES = (".tsv", ".json", ".jsonl", ".gz", ".xlsx", ".feather", ".arrow", ".txt")
NOT_MEASURED = "no volume within the budget"
NO_JACOBIAN = "its Jacobian is not finite"


def assemble(workspace: Workspace, parts: Sequence[int], wanted: Wanted) -> tuple[pa.Table, NDArray[np.int64]]:
    """Put the columns that are wanted together, one row an image, in the order of the listing; and the images' indices.

    Args:
        workspace: has the parts.
        parts: numbers of the parts of embeddings and scores, ascending.
        wanted: the columns.
    """
    files = _joined(workspace, EMBEDDINGS, parts, ["index", "filename", "class", "compressed_size", "reason"])
    index = files["index"].to_numpy()
    columns: dict[str, Any] = {name: files[name] for name in ("filename", "class", "compressed_size")}
    if wanted.needs("reference", "volume", "exact volume"):
        scores = _joined(workspace, SCORES, parts)
        columns |= {name: scores[name] for name in ("embedding_log_density", "mahalanobis", "knn_distance")}
    reason = files["reason"]
    if wanted.volumes:
        measured = measured_volumes(workspace, index)
        density = measured["log_volume"] + numbers(columns["embedding_log_density"])
        columns |= {name: nullable(measured[name]) for name in ("log_volume", "jepa_score")}
        columns["log_density"] = nullable(density)
        columns["percentile"] = nullable(percentiles(density))
        columns["class_percentile"] = nullable(percentiles(density, files["class"]))
        classes = np.array(files["class"].to_pylist(), dtype=object)
        columns["doubt"] = nullable(doubt(density, numbers(files["compressed_size"]), classes))
        reason = pc.coalesce(reason, _why_no_volume(measured, numbers(columns["embedding_log_density"])))
    if wanted.needs("neighbours") and set(parts) <= workspace.numbers(NEAREST):
        columns |= _nearest(_joined(workspace, NEAREST, parts), index, files["filename"])
    columns["reason"] = reason
    flat = files["class"].null_count == len(index)
    names = [name for name in wanted.names if name in columns and not (flat and name in WITH_FOLDERS)]
    schema = pa.schema([(name, BY_NAME[name].type) for name in names])
    return pa.table({name: columns[name] for name in names}, schema), index


def percentiles(scores: NDArray[np.float64], classes: pa.ChunkedArray | None = None) -> NDArray[np.float64]:
    """Percentile, 0 to 100, of each score (N,) among all that are finite, or among those of its class.

    Equal scores have equal percentiles, and their mean is 50; NaN for a score that is not finite.
    """
    found = np.full(len(scores), np.nan)
    groups = [np.arange(len(scores))] if classes is None else _members(classes)
    for group in groups:
        group = group[np.isfinite(scores[group])]
        if len(group):
            found[group] = 100.0 * (rankdata(scores[group]) - 0.5) / len(group)
    return found


def thumbnails(workspace: Workspace, parts: Sequence[int]) -> Iterator[bytes | None]:
    """Thumbnails in the order of the table, read one part at a time."""
    for number in parts:
        yield from workspace.read(EMBEDDINGS, number)["thumbnail"].to_pylist()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table whole, as Parquet or CSV by its suffix.

    Raises:
        OSError: naming the file, where it cannot be written.
    """
    with written_whole(path) as file:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, file)
        else:
            pyarrow.parquet.write_table(table, file)


def read_table(path: Path) -> pa.Table:
    """Read a table that :func:`write_table` wrote."""
    if path.suffix != ".csv":
        return pyarrow.parquet.read_table(path)
    types = {name: column.type for name, column in BY_NAME.items()}
    return pyarrow.csv.read_csv(
        path,
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
    )


def place_of(output: Path) -> tuple[Path, Path]:
    """The table's file and the folder of all else, from ``--output``: a folder, or a file that has it beside it.

    Raises:
        ConfigurationError: for a file of another kind.
    """
    if output.suffix in SUFFIXES:
        return output, output.with_suffix("")
    if output.is_file() or output.suffix.lower() in (*SUFFIXES, *OTHER_TABLES):
        raise ConfigurationError(
            f"--output {output} is no table that is written: name a folder, or a file ending in .parquet or .csv."
        )
    return output / TABLE, output


def _joined(workspace: Workspace, kind: str, parts: Sequence[int], names: list[str] | None = None) -> pa.Table:
    tables = (workspace.read(kind, number) for number in parts)
    return pa.concat_tables(rows if names is None else rows.select(names) for rows in tables)


def measured_volumes(workspace: Workspace, index: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Values of the measured images in the rows of all; NaN where there is none, with ``measured`` saying which."""
    names = ("log_volume", "jepa_score", "clipped", "imprecise")
    found = {name: np.full(len(index), np.nan) for name in names}
    found["measured"] = np.zeros(len(index))
    for number in sorted(workspace.numbers(VOLUMES)):
        rows = workspace.read(VOLUMES, number)
        at = np.searchsorted(index, rows["index"].to_numpy())
        found["measured"][at] = 1.0
        for name in names:
            found[name][at] = numbers(rows[name])
    return found


def _why_no_volume(measured: dict[str, NDArray[np.float64]], density: NDArray[np.float64]) -> pa.Array:
    reasons = np.full(len(density), None, dtype=object)
    reasons[np.isfinite(density) & (measured["measured"] == 0)] = NOT_MEASURED
    reasons[(measured["measured"] == 1) & ~np.isfinite(measured["log_volume"])] = NO_JACOBIAN
    return pa.array(reasons, pa.string())


def _nearest(rows: pa.Table, index: NDArray[np.int64], filenames: pa.ChunkedArray) -> dict[str, Any]:
    places = pa.array(np.arange(len(index)))
    at = pc.index_in(rows["nearest_index"], pa.array(index)) if len(index) else places
    return {"nearest_filename": filenames.take(at)} | {
        name: rows[name] for name in ("nearest_distance", "nearest_difference")
    }


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Values of a column (N,); NaN for null."""
    values: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    return values


def _members(classes: pa.ChunkedArray) -> list[NDArray[np.int64]]:
    """Rows of each class."""
    codes = pc.fill_null(classes.combine_chunks().dictionary_encode().indices, -1).to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
