"""Files that are ranked: the images below a folder, or those that a text file names."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from jepa_train.data.folders import EXTENSIONS, by_suffix, image_files, warn_of_skipped
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.workspace import MANIFEST, PAGE

SAMPLE = 1000  # files whose contents are compared
END = 1 << 15  # bytes of them at either end
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Names(Sequence[str]):
    """Names of files in one piece of memory, where a million Python strings would take several times as much.

    Args:
        names: as the operating system has them (:func:`os.fsencode`).
    """

    def __init__(self, names: Sequence[bytes]) -> None:
        self._ends: NDArray[np.int64] = np.fromiter(accumulate(map(len, names)), dtype=np.int64, count=len(names))
        self._joined = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The name, as :func:`os.fsdecode` gives it; a list of them for a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        return os.fsdecode(self._joined[start : int(self._ends[place])])

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True)
class ImageListing:
    """Files that are ranked, sorted by their names.

    Attributes:
        root: the folder that names are relative to.
        filenames: names with POSIX separators, relative to ``root``, or absolute if they lie elsewhere.
        nested: true where a file lies in a folder below the root, so that folders are classes.
        identity: sha256, in hexadecimal, of names, sizes, and a sample of the contents.
    """

    root: Path
    filenames: Names
    nested: bool
    identity: str

    def __len__(self) -> int:
        return len(self.filenames)

    def path(self, index: int) -> Path:
        """The file itself."""
        return self.root / self.filenames[index]

    def filename(self, index: int) -> str:
        r"""The name for the table, which holds text: bytes that are no UTF-8 become ``\xff``."""
        return os.fsencode(self.filenames[index]).decode("utf-8", "backslashreplace")

    def class_of(self, index: int) -> str | None:
        """The folder of a file, relative to the root (``.`` for the root); ``None`` where all files are flat."""
        return (os.path.dirname(self.filename(index)) or ".") if self.nested else None


def list_images(source: Path | str | None = None, *, listed: Path | None = None) -> ImageListing:
    """List the images below a folder, by their suffix, or those that a text file names; none is opened.

    A folder is read as ``ImageFolderDataModule`` reads it: hidden files are left out, as is the page of a ranking that
    lies there, and a folder that several links lead to is read once. Images whose link leads nowhere stay in the list,
    as do missing files that are named; other links that lead nowhere are skipped, with a warning.

    Args:
        source: a folder, nested or flat.
        listed: text file with one path a line, absolute or relative to ``source``, or to the text file's own folder if
            there is no ``source``. Where it has NUL bytes, they end the paths (``find -print0``). A path that is named
            twice counts once, with a warning.

    Raises:
        ConfigurationError: if there is no such folder or file, or not one image in it.
    """
    if listed is not None:
        return _of_names(*_listed(Path(listed), None if source is None else Path(source)))
    if source is None:
        raise ConfigurationError("there is nothing to rank: give a folder of images, or --data.list FILE.")
    root = Path(source)
    _check_is_folder(root)
    found = image_files(root)
    links = [link for link in found.dangling if _is_named_as_image(link)]
    warn_of_skipped(replace(found, dangling=[link for link in found.dangling if not _is_named_as_image(link)]))
    paths = _without_pages(root, found.paths)
    if not paths and not links:
        others = f", but {by_suffix(found.skipped)}" if found.skipped else ""
        raise ConfigurationError(f"{root} holds no images{others}: give the folder that holds them.")
    return _of_names(root, map(os.fsencode, [*paths, *links]))


def _is_named_as_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _without_pages(root: Path, paths: Sequence[str]) -> list[str]:
    """Leave out the pictures of pages that rankings have below their images."""
    folders = {os.path.dirname(path) for path in paths}
    pages = {
        folder
        for folder in folders
        if os.path.basename(folder) == PAGE and (root / os.path.dirname(folder) / MANIFEST).is_file()
    }
    return [path for path in paths if os.path.dirname(path) not in pages]


def _check_is_folder(root: Path) -> None:
    if root.is_file():
        raise ConfigurationError(
            f"{root} is a file: give the folder of the images, or a text file of their paths as --data.list {root}."
        )
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {root}: give the folder of the images.")


def _listed(listed: Path, source: Path | None) -> tuple[Path, set[bytes]]:
    """Read the folder and the names of a list, each once."""
    if source is not None:
        _check_is_folder(source)
    root = source or listed.parent
    try:
        text = listed.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise ConfigurationError(f"the list {listed} cannot be read ({error.strerror}): check --data.list.") from None
    lines = text.split(b"\0") if b"\0" in text else text.replace(b"\r\n", b"\n").split(b"\n")
    below = os.fsencode(os.path.abspath(root)) + os.fsencode(os.sep)
    every = [os.path.normpath(line.removeprefix(below)) for line in lines if line]
    names = set(every)
    if not names:
        raise ConfigurationError(f"the list {listed} names no files: write one path a line.")
    if repeats := len(every) - len(names):
        are = "is a repeat" if repeats == 1 else "are repeats"
        rank_zero_warn(f"{repeats} of {len(every)} paths {are} in the list {listed}: each file is ranked once.")
    return root, names


def _of_names(root: Path, names: Iterable[bytes]) -> ImageListing:
    separator = os.fsencode(os.sep)
    in_order = sorted(name.replace(separator, b"/") for name in names)
    return ImageListing(root, Names(in_order), any(b"/" in name for name in in_order), _identity(root, in_order))


def _identity(root: Path, names: Sequence[bytes]) -> str:
    """Hash names and sizes, and the bytes of a sample of the files; a copy of the folder has the same.

    Times are left out: a copy has others. A file that changes and keeps its size is noticed if it is of the sample, as
    each of up to 1,000 files is.
    """
    digest, folder = hashlib.sha256(), os.fsencode(root)
    sample = set(np.linspace(0, len(names) - 1, min(len(names), SAMPLE)).round().astype(int).tolist())
    for place, name in enumerate(names):
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
            facts = b"%d" % status.st_size
            if place in sample and stat.S_ISREG(status.st_mode):
                facts += b"\0" + _ends(path, status.st_size)
        except OSError:
            facts = b"missing"
        digest.update(name + b"\0" + facts + b"\0")
    return digest.hexdigest()


def _ends(path: bytes, size: int) -> bytes:
    """Hash the beginning and the end of a file, where compressed pictures have their checksums."""
    with open(path, "rb") as file:
        begin = file.read(END)
        file.seek(max(size - END, 0))
        return hashlib.sha256(begin + file.read(END)).digest()
