"""The table of a ranking: parts put together, percentiles, and the file that holds it, Parquet or CSV."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
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
from jepa_train.ranking.columns import BY_NAME, Wanted
from jepa_train.ranking.doubt import doubt
from jepa_train.ranking.reasons import reasons_of
from jepa_train.ranking.scores import nullable
from jepa_train.ranking.workspace import (
    EMBEDDINGS,
    LOWEST_FIRST,
    MEASURED,
    NEAREST,
    SCORES,
    VOLUMES,
    Workspace,
    read_manifest,
)

TABLE = "ranking.parquet"
SUFFIXES = (".parquet", ".csv")
OTHER_TABLES = (".tsv", ".json", ".jsonl", ".gz", ".xlsx", ".feather", ".arrow", ".txt")


def assemble(workspace: Workspace, parts: Sequence[int], wanted: Wanted) -> pa.Table:
    """Put together all that was computed for the columns that are wanted, one row an image, in the listing's order.

    Args:
        workspace: has the parts.
        parts: numbers of the parts of embeddings and scores, ascending.
        wanted: the columns.

    Returns:
        these columns as far as they can be told, others that were computed on the way, and of volumes ``measured``,
        ``clipped`` and ``imprecise``, see :class:`VolumePass`.
    """
    files = _joined(workspace, EMBEDDINGS, parts, ("index", "filename", "class", "compressed_size", "reason"))
    flat = files["class"].null_count == len(files)
    columns: dict[str, Any] = {name: files[name] for name in files.column_names if name not in ("index", "reason")}
    if flat:
        del columns["class"]
    index = files["index"].to_numpy()
    if wanted.needs("reference", "volume", "exact volume"):
        scores = _joined(workspace, SCORES, parts)
        columns |= {name: scores[name] for name in ("embedding_log_density", "mahalanobis", "knn_distance")}
    if wanted.volumes:
        columns |= _measured_volumes(workspace, index)
        columns |= _compared(numbers(columns["log_volume"]) + numbers(columns["embedding_log_density"]), files, flat)
    if wanted.needs("neighbours") and set(parts) <= workspace.numbers(NEAREST):
        columns |= _nearest(_joined(workspace, NEAREST, parts), index, files["filename"])
    known = pa.table(columns)
    lowest_first = (read_manifest(workspace.folder) or {}).get("order") == LOWEST_FIRST
    return known.append_column("reason", reasons_of(known, files["reason"], wanted, lowest_first=lowest_first))


def chosen(known: pa.Table, wanted: Wanted) -> pa.Table:
    """The columns that are wanted and known, in order."""
    return known.select([name for name in wanted.names if name in known.column_names])


def percentiles(scores: NDArray[np.float64], classes: pa.ChunkedArray | None = None) -> NDArray[np.float64]:
    """Percentile, 0 to 100, of each score (N,) among all that are finite, or among those of its class.

    Equal scores have equal percentiles, and their mean is 50; NaN for a score that is not finite, or the only one.
    """
    found = np.full(len(scores), np.nan)
    groups = [np.arange(len(scores))] if classes is None else _members(classes)
    for group in groups:
        group = group[np.isfinite(scores[group])]
        if len(group) > 1:
            found[group] = 100.0 * (rankdata(scores[group]) - 0.5) / len(group)
    return found


def thumbnails(workspace: Workspace, parts: Sequence[int]) -> Iterator[bytes | None]:
    """Thumbnails in the order of the table, read one part at a time."""
    for number in parts:
        yield from workspace.read(EMBEDDINGS, number)["thumbnail"].to_pylist()


def write_table(path: Path, table: pa.Table, *, noted: Callable[[Path], None] | None = None) -> None:
    """Write a table whole, as Parquet or CSV by its suffix.

    Args:
        path: the file.
        table: the table.
        noted: called with the complete file before it gets its name.

    Raises:
        OSError: naming the file, where it cannot be written.
    """
    with written_whole(path) as file:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, file)
        else:
            pyarrow.parquet.write_table(table, file)
        if noted is not None:
            file.flush()
            noted(Path(file.name))


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


def _joined(workspace: Workspace, kind: str, parts: Sequence[int], names: Collection[str] | None = None) -> pa.Table:
    """Rows of all parts, with those of the named columns that parts of this kind have."""
    tables = (workspace.read(kind, number) for number in parts)
    return pa.concat_tables(
        rows if names is None else rows.select([name for name in rows.column_names if name in names]) for rows in tables
    )


def _measured_volumes(workspace: Workspace, index: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Values (N,) of the images that were measured, null for others; ``measured`` says which those are."""
    found = {name: np.full(len(index), np.nan) for name in MEASURED}
    measured = np.zeros(len(index), dtype=np.bool_)
    for number in sorted(workspace.numbers(VOLUMES)):
        rows = workspace.read(VOLUMES, number)
        at = np.searchsorted(index, rows["index"].to_numpy())
        measured[at] = True
        for name in MEASURED:
            found[name][at] = numbers(rows[name])
    return {name: nullable(values) for name, values in found.items()} | {"measured": pa.array(measured)}


def _compared(log_density: NDArray[np.float64], files: pa.Table, flat: bool) -> dict[str, pa.Array]:
    """Log density (N,), and what it is beside that of others."""
    found = {"log_density": log_density, "percentile": percentiles(log_density)}
    if not flat:
        found["class_percentile"] = percentiles(log_density, files["class"])
    if "compressed_size" in files.column_names:
        classes = np.array(files["class"].to_pylist(), dtype=object)
        found["doubt"] = doubt(log_density, numbers(files["compressed_size"]), classes)
    return {name: nullable(values) for name, values in found.items()}


def _nearest(rows: pa.Table, index: NDArray[np.int64], filenames: pa.ChunkedArray) -> dict[str, Any]:
    places = pa.array(np.arange(len(index)))
    at = pc.index_in(rows["nearest_index"], pa.array(index)) if len(index) else places
    known = {name: rows[name] for name in rows.column_names if name in BY_NAME}
    return {"nearest_filename": filenames.take(at), **known}


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Values of a column (N,); NaN for null."""
    values: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    return values


def _members(classes: pa.ChunkedArray) -> list[NDArray[np.int64]]:
    """Rows of each class."""
    codes = pc.fill_null(classes.combine_chunks().dictionary_encode().indices, -1).to_numpy()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
