"""The folder of a ranking: a manifest of what is ranked, and results in parts, each written whole.

A part is one file for a fixed range of positions of a fixed order. Whoever is killed loses the part that was being
computed; what is there and whole is never written again, so that a resumed ranking ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from jepa_train.checkpoints.files import PARTIAL, is_whole_archive, remove_partial, written_whole
from jepa_train.errors import ConfigurationError, RunFailed, some_of
from jepa_train.ranking.checksums import is_whole, sealed
from jepa_train.ranking.previous import ASIDE, give_up, is_set_aside, put_back, set_aside, settle

MANIFEST = "manifest.json"
TABLES = "tables"  # entry of the manifest: what was written where
PARTS = "parts"
REFERENCE = "reference.pt"
INDEX, PAGE = "index.html", "page"  # the page, and the folder beside it
SHOWN = "page"  # entry of the manifest: sha256 of the table that the page shows
ENTRIES = (MANIFEST, PARTS, REFERENCE)  # of the folder that go together
SUFFIX = ".arrow"
FORMAT = 4  # of the files of a part, and of what is in them
EMBEDDINGS, REFERENCES, SCORES, VOLUMES, NEAREST = "embeddings", "references", "scores", "volumes", "nearest"
AUTO = "auto"  # estimator that is not chosen yet
LOWEST_FIRST = "lowest embedding_log_density first"  # order of volumes
MEASURED = ("log_volume", "jepa_score", "clipped", "imprecise")  # columns of volumes
# how a manifest's entries are called where two of them differ
NAMES = {
    "format": "format of files",
    "encoder": "encoder",
    "preparation": "preparation of images",
    "images": "list of images (files were added, removed or changed)",
    "reference": "reference",
    "estimator": "estimator of volumes",
    "precision": "precision",
    "seed": "seed",
    "shard": "shard",
    "part_size": "number of images a part",
    "versions": "version",
}


@dataclass(frozen=True)
class Workspace:
    """The folder of a ranking.

    Attributes:
        folder: where parts are written to.
        sources: further folders, in which parts are looked for: those of shards.
    """

    folder: Path
    sources: tuple[Path, ...] = ()

    def numbers(self, kind: str) -> set[int]:
        """Numbers of the parts of a kind that are there."""
        folders = (self._parts(folder, kind) for folder in (self.folder, *self.sources))
        return {int(path.stem) for folder in folders for path in folder.glob(f"[0-9]*{SUFFIX}")}

    def write(self, kind: str, number: int, rows: pa.Table) -> None:
        """Write a part whole.

        Raises:
            OSError: naming the file, where the disk is full or cannot be written to.
        """
        path = self._path(self.folder, kind, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(sealed(rows))

    def read(self, kind: str, number: int) -> pa.Table:
        """Map a part into memory.

        Raises:
            RunFailed: if it cannot be read.
        """
        paths = [self._path(folder, kind, number) for folder in (self.folder, *self.sources)]
        path = next((path for path in paths if path.is_file()), paths[0])
        try:
            with pa.memory_map(str(path)) as file:
                return pa.ipc.open_file(file).read_all().replace_schema_metadata()
        except (pa.ArrowInvalid, OSError):
            raise RunFailed(f"{path} is missing or damaged: run the same command again, which makes it anew.") from None

    def note(self, **entries: Any) -> None:
        """Add entries to the manifest, or change them."""
        manifest = read_manifest(self.folder) or {}
        if (changed := manifest | entries) != manifest:
            write_json(self.folder / MANIFEST, changed)

    def damaged(self) -> list[Path]:
        """Files of the folder that are not as they were written, by their checksums."""
        parts, reference = sorted((self.folder / PARTS).glob(f"*/[0-9]*{SUFFIX}")), self.folder / REFERENCE
        found = [path for path in parts if not is_whole(path)]
        return [*found, reference] if reference.is_file() and not is_whole_archive(reference) else found

    def discard_damaged(self) -> None:
        """Remove files that are not as they were written, with one warning: they are made anew."""
        if found := self.damaged():
            for path in found:
                path.unlink()
            names = some_of([str(path.relative_to(self.folder)) for path in found])
            rank_zero_warn(f"Damaged files in {self.folder} are computed again: {names}.")

    def remove_partial(self) -> None:
        """Remove what a kill left of files that were being written; nobody may write to the folder now."""
        for folder in (self.folder, self.folder / PAGE, *(self.folder / PARTS).glob("*")):
            remove_partial(folder)

    def remove(self, kind: str) -> None:
        """Remove all parts of a kind."""
        shutil.rmtree(self._parts(self.folder, kind), ignore_errors=True)

    def abandon(self) -> None:
        """Remove a ranking that came to nothing, and put back what it replaced; one with a result stays."""
        if is_set_aside(self.folder):
            put_back(self.folder, ENTRIES)
            return
        manifest = read_manifest(self.folder)
        if manifest is None or manifest.get(TABLES) or (self.folder / REFERENCE).is_file():
            return
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        with suppress(OSError):  # there are other files
            self.folder.rmdir()

    def _path(self, folder: Path, kind: str, number: int) -> Path:
        return self._parts(folder, kind) / f"{number:09d}{SUFFIX}"

    @staticmethod
    def _parts(folder: Path, kind: str) -> Path:
        return folder / PARTS / kind


def open_workspace(
    folder: Path, manifest: Mapping[str, Any], *, overwrite: bool = False, sources: Sequence[Path] = ()
) -> Workspace:
    """Begin a ranking in a folder, or go on with the one that was begun there.

    Args:
        folder: made if there is none.
        manifest: plain JSON types: all that results depend on.
        overwrite: begin anew, and set the ranking that is there aside, see :mod:`jepa_train.ranking.previous`.
        sources: further folders with parts, see :class:`Workspace`.

    Raises:
        ConfigurationError: if it is of another ranking, or holds anything else.
    """
    workspace, found = Workspace(folder, tuple(sources)), read_manifest(folder)
    if found is not None and not overwrite:
        _check_is_of(folder, found, manifest)
        return workspace
    if found is not None:
        set_aside(folder, ENTRIES)
    elif holds_files(folder) and not overwrite:
        raise ConfigurationError(
            f"{folder} holds other files and no ranking: choose another --output, or add --overwrite to write the "
            "ranking beside them."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, {**manifest, TABLES: (found or {}).get(TABLES, {})})
    return workspace


def _check_is_of(folder: Path, found: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """See that a folder has the ranking of a manifest; put it back where an unfinished one began to replace it."""
    difference, replaced = difference_of(found, manifest), read_manifest(folder / ASIDE)
    if difference is None:
        return
    if replaced is None or difference_of(replaced, manifest) is not None:
        raise ConfigurationError(
            f"the ranking in {folder} was begun with another {difference}: choose another --output, or add "
            "--overwrite to begin anew."
        )
    put_back(folder, ENTRIES)


def recover(folder: Path) -> None:
    """Set right what a kill left where one ranking was about to replace another."""
    settle(folder)
    if is_set_aside(folder) and not (folder / MANIFEST).is_file():
        put_back(folder, ENTRIES)


@contextmanager
def abandoned_where_refused(workspace: Workspace) -> Iterator[None]:
    """Leave nothing behind of a ranking that is refused after it began, or fails before anything is computed.

    What it was to replace is put back then, and removed where the block ends well.
    """
    try:
        yield
        give_up(workspace.folder)
    except Exception as error:
        if isinstance(error, ConfigurationError) or not any((workspace.folder / PARTS).rglob(f"*{SUFFIX}")):
            workspace.abandon()
        raise


def holds_files(folder: Path) -> bool:
    """Tell whether a folder holds anything but what a kill left of a file that was being written."""
    return folder.is_dir() and any(path.suffix != PARTIAL for path in folder.iterdir())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; ``None`` where there is none.

    Raises:
        ConfigurationError: for a file that is no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict) or "format" not in content:
        raise ConfigurationError(f"{path} is not the manifest of a ranking: choose another --output.")
    return content


def difference_of(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Name the first entry in which two manifests differ, with both values; ``None`` where they go together.

    An estimator that is not chosen yet goes together with any.
    """
    for name in NAMES:
        before, now = found.get(name), wanted.get(name)
        if before == now or (name == "estimator" and AUTO in (before, now)):
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            inner = next(key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key))
            return f"{NAMES[name]} ({inner}: {_short(before.get(inner))}, not {_short(now.get(inner))})"
        return f"{NAMES[name]} ({_short(before)}, not {_short(now)})"
    return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain JSON types whole; what is not finite is null."""
    with written_whole(path) as file:
        file.write((json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode())


def vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Embeddings (N, K) of a part's column, without a copy."""
    array = column.combine_chunks()
    flat: NDArray[np.float32] = array.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(array), array.type.list_size)


def vector_column(z: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """A column of embeddings (N, K)."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(z).reshape(-1)), z.shape[1])


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:16]}...{text[-1]}"
