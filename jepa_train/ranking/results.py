"""The end of a ranking: table, summary and page, from parts that may lie in the folders of several shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from lightning.pytorch.utilities import rank_zero_info

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.arguments import check_arguments
from jepa_train.ranking.columns import Wanted, wanted_columns
from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.embedding import listing_order
from jepa_train.ranking.findings import Facts
from jepa_train.ranking.neighbour_search import MOST_EXACT, has_faiss
from jepa_train.ranking.page import write_page
from jepa_train.ranking.references import RankingReference, file_identity, read_reference
from jepa_train.ranking.replacing import begin_ranking, replace_table
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.summary import FILE, summary_of
from jepa_train.ranking.table import assemble, chosen, place_of, read_table, thumbnails
from jepa_train.ranking.workspace import (
    AUTO,
    EMBEDDINGS,
    INDEX,
    NEAREST,
    REFERENCE,
    SCORES,
    SHOWN,
    TABLES,
    Workspace,
    abandoned_where_refused,
    difference_of,
    read_manifest,
    write_json,
)


def searches(wanted: Wanted, count: int) -> bool:
    """Tell whether near-duplicates of ``count`` images are searched."""
    return wanted.needs("neighbours") and (wanted.explicit or count <= MOST_EXACT or has_faiss())


def write_results(
    workspace: Workspace,
    parts: Sequence[int],
    wanted: Wanted,
    table_file: Path,
    reference: RankingReference | None,
    seconds: Mapping[str, float],
    *,
    page: bool,
) -> None:
    """Write the table, then the summary, then the page, each whole.

    Args:
        workspace: has the parts and the manifest.
        parts: numbers of the parts of embeddings, ascending.
        wanted: columns of the table.
        table_file: where it goes.
        reference: what is typical; ``None`` where no column needs it.
        seconds: time of each stage.
        page: write the page, too; without it, one that shows another table is removed.

    Raises:
        OSError: naming the file that cannot be written.
    """
    manifest = read_manifest(workspace.folder)
    assert manifest is not None
    known = assemble(workspace, parts, wanted)
    table, index = chosen(known, wanted), workspace.folder / INDEX
    had_page = index.is_file()
    replace_table(table_file, workspace.folder, table)
    summary = summary_of(Facts(known, wanted, reference), manifest, seconds)
    write_json(workspace.folder / FILE, summary)
    if page:
        images = os.path.relpath(manifest["root"], workspace.folder.resolve()).replace(os.sep, "/")
        pictures = thumbnails(workspace, parts)
        write_page(workspace.folder, table, thumbnails=pictures, images=images, summary=summary)
        workspace.note(**{SHOWN: file_identity(table_file)})
    elif had_page and not index.is_file():
        rank_zero_info(
            f"Removed the page {index}, because it showed another table: leave out --page false to write a page."
        )


def merge(
    shards: Sequence[Path | str], *, output: Path | str = "ranked", overwrite: bool = False, page: bool = True
) -> pa.Table:
    """Put the shards of one ranking together: the table is that of the ranking in one piece.

    Args:
        shards: folders of all shards; they are read, not changed.
        output: as in :func:`rank`.
        overwrite: replace another ranking at that place.
        page: write index.html, too.

    Returns:
        the table.

    Raises:
        ConfigurationError: if they are not all the shards of one ranking, or one of them is not finished.
    """
    check_arguments(merge, locals())
    given = [shards] if isinstance(shards, str) else shards
    folders = [place_of(Path(shard))[1] for shard in given]
    manifests = [_manifest(folder) for folder in folders]
    merged = _merged(folders, manifests)
    table_file, folder = place_of(Path(output))
    wanted = wanted_columns(merged["scores"])
    parts = list(listing_order(merged["count"], merged["part_size"]).parts)
    _check_finished(Workspace(folder, tuple(folders)), parts, wanted, manifests)
    reference_file = folders[0] / REFERENCE
    reference = read_reference(reference_file, merged["encoder"]) if reference_file.is_file() else None
    workspace = begin_ranking(table_file, folder, merged, overwrite=overwrite, sources=folders)
    with abandoned_where_refused(workspace):
        if searches(wanted, merged["count"]):
            there = workspace.numbers(NEAREST)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            write_nearest(workspace, parts, [part for part in parts if part not in there], device)
    write_results(workspace, parts, wanted, table_file, reference, {}, page=page)
    return read_table(table_file)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None or "shard" not in manifest:  # as of RankingWriter
        raise ConfigurationError(f"{folder} is not the folder of a shard: name the --output of each.")
    return manifest


def _merged(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Manifest of the whole."""
    if not folders:
        raise ConfigurationError("there is nothing to merge: name the folders of all shards.")
    estimator = next((manifest["estimator"] for manifest in manifests if manifest["estimator"] != AUTO), AUTO)
    merged = manifests[0] | {"shard": str(Shard()), "estimator": estimator, TABLES: {}}
    for folder, manifest in zip(folders, manifests, strict=True):
        if (difference := difference_of(merged, manifest | {"shard": str(Shard())})) is not None:
            raise ConfigurationError(f"{folder} and {folders[0]} are of different rankings: another {difference}.")
    others = [
        folder for folder, manifest in zip(folders, manifests, strict=True) if manifest["scores"] != merged["scores"]
    ]
    if others:
        raise ConfigurationError(
            f"{others[0]} was ranked with other --scores than {folders[0]}: run the command of one of them again, with "
            "those of the other."
        )
    shards = [Shard.parse(str(manifest["shard"])) for manifest in manifests]
    missing = sorted({*range(1, shards[0].of + 1)} - {shard.number for shard in shards})
    if len({shard.of for shard in shards}) > 1 or missing or len(shards) > shards[0].of:
        named = ", ".join(map(str, shards))
        lacks = f": {', '.join(f'{number}/{shards[0].of}' for number in missing)} is missing" if missing else ""
        raise ConfigurationError(f"the shards {named} must be all shards of one ranking, each once{lacks}.")
    return merged


def _check_finished(
    workspace: Workspace, parts: Sequence[int], wanted: Wanted, manifests: Sequence[Mapping[str, Any]]
) -> None:
    kinds = [EMBEDDINGS, *([SCORES] if wanted.needs("reference", "volume", "exact volume") else [])]
    missing = [part for kind in kinds for part in set(parts) - workspace.numbers(kind)]
    if damaged := [path for folder in workspace.sources for path in Workspace(folder).damaged()]:
        raise ConfigurationError(f"{damaged[0]} is damaged: run the command of its shard again, which repairs it.")
    if missing:
        numbers = [Shard.parse(manifest["shard"]).number for manifest in manifests]
        folder = workspace.sources[numbers.index(min(missing) % len(numbers) + 1)]
        raise ConfigurationError(f"the shard {folder} is not finished: run its command again.")
