"""Tables that a ranking wrote, known by their content: what somebody edited is never replaced unasked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_info

from jepa_train.checkpoints.files import remove_partial
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.page import remove_page
from jepa_train.ranking.references import file_identity
from jepa_train.ranking.table import write_table
from jepa_train.ranking.workspace import SHOWN, TABLES, Workspace, open_workspace, read_manifest, recover


def begin_ranking(
    table_file: Path, folder: Path, manifest: Mapping[str, Any], *, overwrite: bool, sources: Sequence[Path] = ()
) -> Workspace:
    """Begin a ranking whose table may be written, or go on with it, without what a kill or a disk left damaged.

    Args:
        table_file: where its table goes.
        folder, manifest, overwrite, sources: see :func:`open_workspace`.

    Raises:
        ConfigurationError: if something else is there, see :func:`check_replaceable` and :func:`open_workspace`.
    """
    recover(folder)
    if not overwrite:
        check_replaceable(table_file, folder)
    workspace = open_workspace(folder, manifest, overwrite=overwrite, sources=sources)
    workspace.remove_partial()
    remove_partial(table_file.parent, table_file.name)
    workspace.discard_damaged()
    return workspace


def check_replaceable(table_file: Path, folder: Path) -> None:
    """See that a table may be written: its place is free, or has what this ranking wrote there.

    Args:
        table_file: where it goes.
        folder: folder of the ranking.

    Raises:
        ConfigurationError: if it is somebody else's, or was changed meanwhile.
    """
    if not table_file.exists():
        return
    known = _known(folder).get(_name(table_file, folder))
    if known is None:
        raise ConfigurationError(
            f"{table_file} exists already, and no ranking in {folder} wrote it: move it elsewhere, choose another "
            "--output, or add --overwrite."
        )
    if file_identity(table_file) not in known["sha256"]:
        raise ConfigurationError(
            f"{table_file} was edited since the ranking wrote it: to keep it, move it elsewhere and run the command "
            "again, or choose another --output; to replace it, add --overwrite, which begins anew."
        )


def replace_table(table_file: Path, folder: Path, table: pa.Table) -> None:
    """Write a table whole, and say which columns the one before had besides; a page that shows another one is removed.

    Raises:
        OSError: naming the file, where it cannot be written.
    """
    before = _known(folder).get(_name(table_file, folder), {}).get("columns", [])
    lost = [name for name in before if name not in table.column_names]
    if lost and table_file.exists():
        rank_zero_info(
            f"{table_file} also had {', '.join(lost)}, which --scores leaves out now. The computed values are kept: "
            "the earlier command writes these columns again."
        )
    write_table(table_file, table, noted=partial(_note, folder, _name(table_file, folder), table.column_names))


def _note(folder: Path, name: str, columns: list[str], written: Path) -> None:
    """Add the content of a table to the manifest before the table gets its name: a kill in between does no harm."""
    tables, identity = _known(folder), file_identity(written)
    if (read_manifest(folder) or {}).get(SHOWN) != identity:
        remove_page(folder)
    identities = tables.get(name, {}).get("sha256", [])
    now = {"columns": columns, "sha256": identities if identity in identities else [*identities, identity]}
    Workspace(folder).note(**{TABLES: {**tables, name: now}})


def _known(folder: Path) -> dict[str, Any]:
    tables: dict[str, Any] = (read_manifest(folder) or {}).get(TABLES, {})
    return tables


def _name(table_file: Path, folder: Path) -> str:
    """The table's place relative to the folder, which may be moved along with it."""
    return os.path.relpath(table_file.resolve(), folder.resolve()).replace(os.sep, "/")
