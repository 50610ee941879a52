"""The column ``reason``: why values of a row are missing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jepa_train.ranking.columns import BY_NAME, Needs, Wanted

NO_DENSITY = "the reference has too few different embeddings for a density"
NOT_MEASURED = "no volume within the budget"
AFTER_THE_LOWEST = f"{NOT_MEASURED}, which goes to the lowest embedding_log_density first"
UNREADABLE = "its file could not be read again for the volume"
NO_JACOBIAN = "its Jacobian is not finite"
ONLY = "no other image has a log_density to compare with"
ONLY_OF_CLASS = "no other image of its class has a log_density to compare with"
ALONE = "there is no other image to compare with"

Rows = NDArray[np.bool_]


def reasons_of(
    known: pa.Table, of_files: pa.ChunkedArray, wanted: Wanted, *, lowest_first: bool = False
) -> pa.ChunkedArray:
    """Say of each row why wanted values are missing; null where none is, and where a whole column cannot be had.

    Args:
        known: N rows of all that was computed.
        of_files: (N,) why an image has no embedding; it explains all that is missing.
        wanted: columns of the table.
        lowest_first: volumes are measured in the order of the density of the embedding, not as images are listed.
    """
    unexplained = ~_there(of_files)
    lacks = {name: unexplained & ~_there(known[name]) for name in wanted.names if name in known.column_names}
    alone = _any(lacks, "neighbours", count=len(known))
    scores = _any(lacks, "reference", "volume", "exact volume", count=len(known))
    causes = _causes(known, lacks, AFTER_THE_LOWEST if lowest_first else NOT_MEASURED, covered=alone)
    return pc.coalesce(of_files, _joined(_texts(causes, scores), _texts({ALONE: alone}, alone)))


def _causes(known: pa.Table, lacks: dict[str, Rows], not_measured: str, *, covered: Rows) -> dict[str, Rows]:
    """Rows (N,) to which each cause of missing scores applies, where no earlier one does."""
    if "embedding_log_density" not in known.column_names:
        return {}
    causes = {NO_DENSITY: ~_there(known["embedding_log_density"])}
    if "measured" not in known.column_names:
        return causes
    nowhere = np.zeros(len(known), dtype=np.bool_)
    return causes | {
        not_measured: ~known["measured"].to_numpy(),
        UNREADABLE: ~_there(known["clipped"]),
        NO_JACOBIAN: ~_there(known["log_volume"]),
        ONLY: (lacks.get("percentile", nowhere) | lacks.get("doubt", nowhere)) & ~covered,
        ONLY_OF_CLASS: lacks.get("class_percentile", nowhere) & ~covered,
    }


def _any(lacks: dict[str, Rows], *needs: Needs, count: int) -> Rows:
    """Rows (N,) that lack any column which is computed from these."""
    found = np.zeros(count, dtype=np.bool_)
    for name, rows in lacks.items():
        if BY_NAME[name].needs in needs:
            found |= rows
    return found


def _texts(causes: dict[str, Rows], where: Rows) -> pa.Array:
    """The first cause that applies to each row (N,); null where none does, and outside ``where``."""
    codes = np.select(list(causes.values()), list(range(len(causes))), -1) if causes else np.full(len(where), -1)
    numbers = pa.array(codes.astype(np.int8), mask=(codes < 0) | ~where)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(list(causes), pa.string())).cast(pa.string())


def _joined(reasons: pa.Array, others: pa.Array) -> pa.Array:
    both = pc.binary_join_element_wise(reasons, others, "; ")  # null where either is
    return pc.coalesce(both, reasons, others)


def _there(column: pa.Array | pa.ChunkedArray) -> Rows:
    valid: Rows = pc.is_valid(column).to_numpy()
    return valid
