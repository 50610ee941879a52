"""Files that are ranked: the images below a folder, or those that a text file names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from jepa_train.data.folders import by_suffix, image_files, warn_of_skipped
from jepa_train.errors import ConfigurationError


class Names(Sequence[str]):
    """Names of files in one piece of memory: a million Python strings would take ten times as much in each worker.

    Args:
        names: as the operating system has them (:func:`os.fsencode`).
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        names = list(names)
        self._ends: NDArray[np.int64] = np.fromiter(accumulate(map(len, names)), dtype=np.int64, count=len(names))
        self._joined = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The name, as :func:`os.fsdecode` gives it."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        return os.fsdecode(self._joined[start : int(self._ends[place])])

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True)
class ImageListing:
    """Files that are ranked, in the order of their names.

    Attributes:
        root: the folder that names are relative to.
        filenames: relative to ``root``, with POSIX separators, sorted.
        nested: true where a file lies in a folder below the root, so that folders are classes.
        identity: sha256, in hexadecimal, of names, sizes and modification times.
    """

    root: Path
    filenames: Names
    nested: bool
    identity: str

    def __len__(self) -> int:
        return len(self.filenames)

    def path(self, index: int) -> Path:
        """The place of the file."""
        return self.root / self.filenames[index]

    def filename(self, index: int) -> str:
        r"""The name in the table: bytes that are no UTF-8 become ``\xff``, because tables hold text."""
        return os.fsencode(self.filenames[index]).decode("utf-8", "backslashreplace")

    def class_of(self, index: int) -> str | None:
        """The folder of a file, relative to the root; ``None`` where all files are flat."""
        return os.path.dirname(self.filename(index)) or "." if self.nested else None


def list_images(source: Path | str, *, listed: Path | None = None) -> ImageListing:
    """List the images below a folder, by their suffix, or those that a text file names; none is opened.

    Args:
        source: a folder, nested or flat.
        listed: text file with one path a line, relative to its folder, or absolute.

    Raises:
        ConfigurationError: if there is no such folder, or no image in it.
    """
    if listed is not None:
        root = Path(listed).parent
        names = [os.fsencode(line) for line in Path(listed).read_text().splitlines() if line]
    else:
        root = Path(source)
        found = image_files(root)
        warn_of_skipped(found)
        names = [os.fsencode(name) for name in found.paths]
        if not names:
            raise ConfigurationError(f"{root} holds no images ({by_suffix(found.skipped)}).")
    names = sorted(names)
    return ImageListing(root, Names(names), any(b"/" in name for name in names), _identity(root, names))


def _identity(root: Path, names: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    folder = os.fsencode(root)
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name))
            facts = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            facts = "missing"
        digest.update(name + b"\0" + facts.encode() + b"\0")
    return digest.hexdigest()
