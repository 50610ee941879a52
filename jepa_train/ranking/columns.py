"""The columns of the table, in order, one record each: name, type, meaning, and what has to be computed for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from jepa_train.commands.parsing import meant
from jepa_train.errors import ConfigurationError

# the files alone, their embeddings, all other embeddings, the Jacobian along r directions, all of its singular values
Needs = Literal["files", "reference", "neighbours", "volume", "exact volume"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: its name.
        type: its type.
        meaning: a phrase, with the unit.
        needs: what it is computed from.
        typical: 1 where larger is more typical, -1 where smaller is, 0 where the column says nothing about it.
    """

    name: str
    type: pa.DataType
    meaning: str
    needs: Needs
    typical: Literal[1, -1, 0] = 0

    @property
    def is_number(self) -> bool:
        """True for a column of numbers."""
        return bool(self.type != pa.string())


COLUMNS = (
    Column("filename", pa.string(), "path relative to the folder that was ranked", "files"),
    Column(
        "class",
        pa.string(),
        'folder of the file, "." for one directly in the folder that was ranked; only where there are folders',
        "files",
    ),
    Column("log_density", pa.float64(), "log_volume + embedding_log_density, nats; higher = more typical", "volume", 1),
    Column(
        "jepa_score",
        pa.float64(),
        "Eq. 5 of arXiv 2510.05949, nats: all singular values, clipped at 1e-6; higher = more typical",
        "exact volume",
        1,
    ),
    Column(
        "embedding_log_density",
        pa.float64(),
        "log density of the embedding among the reference embeddings, nats; higher = more typical",
        "reference",
        1,
    ),
    Column(
        "log_volume",
        pa.float64(),
        "log of the r largest singular values of the Jacobian, summed, nats; higher = more typical",
        "volume",
        1,
    ),
    Column(
        "mahalanobis",
        pa.float64(),
        "distance to the mean of the reference embeddings in units of their covariance; larger = less typical",
        "reference",
        -1,
    ),
    Column(
        "knn_distance",
        pa.float64(),
        "distance to the 10th nearest reference embedding, or the farthest of fewer; larger = less typical",
        "reference",
        -1,
    ),
    Column("compressed_size", pa.int64(), "bytes of the prepared image after lossless compression by zstd", "files"),
    Column(
        "percentile",
        pa.float64(),
        "percent of all log densities that are lower, half of itself and of equal ones counted (mid-rank): "
        "50 / N to 100 - 50 / N; higher = more typical",
        "volume",
        1,
    ),
    Column("class_percentile", pa.float64(), "the same within the class; only where there are folders", "volume", 1),
    Column(
        "doubt",
        pa.float64(),
        "log_density below the usual and the log of compressed_size beside the usual of the class, as one distance in "
        "robust deviations; larger = less typical",
        "volume",
        -1,
    ),
    Column("nearest_filename", pa.string(), "image with the nearest embedding among those ranked", "neighbours"),
    Column("nearest_distance", pa.float64(), "distance to its embedding; near 0 for duplicates", "neighbours"),
    Column(
        "nearest_difference",
        pa.float64(),
        "root mean square difference of both thumbnails, of 255; near 0 for duplicates, whatever the encoder",
        "neighbours",
    ),
    Column("reason", pa.string(), "why values are missing", "files"),
)
BY_NAME = {column.name: column for column in COLUMNS}
ALWAYS = ("filename", "class", "reason")


@dataclass(frozen=True)
class Wanted:
    """The columns that a table shall have.

    Attributes:
        names: their names, in order.
        explicit: true if a user named them.
    """

    names: tuple[str, ...]
    explicit: bool

    @property
    def volumes(self) -> bool:
        """True if any column needs volumes."""
        return self.needs("volume", "exact volume")

    def needs(self, *what: Needs) -> bool:
        """Tell whether any column needs one of these."""
        return any(BY_NAME[name].needs in what for name in self.names)


def wanted_columns(scores: Iterable[str] | None) -> Wanted:
    """The columns that ``--scores`` asks for; ``None`` is all of them.

    Raises:
        ConfigurationError: for a name that no column has.
    """
    if scores is None:
        return Wanted(tuple(BY_NAME), explicit=False)
    asked = [name for name in (str(score).strip() for score in scores) if name not in ALWAYS]
    choices = [name for name in BY_NAME if name not in ALWAYS]
    for name in asked:
        if name not in choices:
            raise ConfigurationError(
                f"there is no score {name!r}{meant(name, choices)}: choose from {', '.join(choices)}."
            )
    together = {name for name in BY_NAME if BY_NAME[name].needs == "neighbours"}  # one says little without the others
    also = {*ALWAYS, *asked, *(together if together & set(asked) else ())}
    return Wanted(tuple(name for name in BY_NAME if name in also), explicit=True)
