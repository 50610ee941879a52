"""Image files below a folder, and which folders are training images and probe."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from jepa_train.data.decoding import UNREADABLE
from jepa_train.errors import ConfigurationError

# what Pillow reads by itself
STILL_PICTURES = (
    ".apng .avif .bmp .dds .dib .gif .icns .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .pbm .pcx .pfm .pgm "
    ".png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp"
)
EXTENSIONS = frozenset(STILL_PICTURES.split())
CHECKED_AT_START = 10_000  # files; of more than that, reading every header would take minutes
TRAIN = ("train", "training")
PROBES = ("val", "validation", "valid", "dev", "test", "testing", "eval", "evaluation")  # the first that there is


@dataclass(frozen=True)
class Listing:
    """Images below a folder.

    Attributes:
        root: the folder.
        paths: of the images, relative to it, sorted.
        skipped: how many files were left out for their suffix, by suffix.
    """

    root: Path
    paths: list[str]
    skipped: Counter[str]

    def take(self, chosen: Iterable[bool]) -> Listing:
        """The images that are chosen, one truth value for each."""
        return replace(self, paths=list(compress(self.paths, chosen)))


def readable_images(root: Path, *, at_least: int = 2, check_at_most: int = CHECKED_AT_START) -> Listing:
    """Images below a folder.

    Hidden files and folders (names that begin with a dot; folders that begin with two underscores) are none of them,
    and a folder that links lead to is read once. Of up to ``check_at_most`` files the headers are read, and the
    unreadable ones are named in one warning; of more, a file counts as an image by its name.

    Raises:
        ConfigurationError: if there is no such folder, one of its folders cannot be read, or there are fewer than
            ``at_least`` images.
    """
    found, skipped = [], Counter[str]()
    for path in visible_files(root):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in EXTENSIONS:
            found.append(path)
        else:
            skipped[suffix] += 1
    found.sort()
    unreadable = [] if len(found) > check_at_most else [path for path in found if not _is_readable(root / path)]
    if unreadable:
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        rank_zero_warn(f"{len(unreadable)} unreadable files are left out: {', '.join(unreadable[:10])}{more}.")
    left_out = set(unreadable)
    readable = [path for path in found if path not in left_out]
    if len(readable) < at_least:
        others = f" (and {by_suffix(skipped)})" if skipped else ""
        raise ConfigurationError(
            f"{root} holds {len(readable)} readable images{others}; training and probe need at least {at_least}."
        )
    return Listing(root, readable, skipped)


def warn_of_skipped(skipped: Counter[str]) -> None:
    """Say how many files were left out for their suffix."""
    if skipped:
        rank_zero_warn(
            f"{skipped.total()} files are skipped, whose names are not those of images: {by_suffix(skipped)}."
        )


def by_suffix(skipped: Counter[str]) -> str:
    """Such as ``7 .txt, 2 without a suffix``, the most frequent ten."""
    named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in skipped.most_common(10)]
    return ", ".join([*named, "others"] if len(skipped) > len(named) else named)


def visible_files(root: Path) -> Iterator[str]:
    """Files that are not hidden, relative to ``root``; the entries of a directory know their kind, so none is opened.

    Links to folders are followed, the last: a folder is read once, under its own name where it has one below ``root``.

    Raises:
        ConfigurationError: if a folder cannot be read.
    """
    folders, seen = [""], set()
    links: list[str] = []
    repeated: list[str] = []
    while folders or links:
        below = folders.pop() if folders else links.pop(0)
        entries, identity = _entries(os.path.join(root, below) if below else os.fspath(root))
        if identity in seen:
            repeated.append(below)
            continue
        seen.add(identity)
        for entry in entries:
            name = os.path.join(below, entry.name)
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(name)
            elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
                yield name
    if repeated:
        rank_zero_warn(
            f"{len(repeated)} links lead to folders that are read under another name, and are left out: "
            f"{', '.join(repeated[:5])}."
        )


def _entries(folder: str) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    """Entries of a directory that are not hidden, sorted by name, and what tells it from others."""
    if not os.path.isdir(folder):
        raise ConfigurationError(f"there is no folder {folder}: point --data.root at a folder of images.")
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not _is_hidden(entry)]
    except OSError as error:
        raise ConfigurationError(
            f"the folder {folder} cannot be read ({error.strerror}): make it readable, or remove it."
        ) from None
    return sorted(visible, key=lambda entry: entry.name), (status.st_dev, status.st_ino)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # of a link that leads to itself the entry knows nothing, and raises
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    """Tell names of editors and operating systems (``.ipynb_checkpoints``, ``._1.png``, ``__MACOSX``)."""
    return entry.name.startswith(".") or (entry.name.startswith("__") and _is_folder(entry))


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except UNREADABLE:
        return False
    return True


def find_splits(root: Path) -> tuple[Path, Path] | None:
    """Folders of training images and of the probe: in ``root``, or in the only folder of it that has both.

    Their names differ in one word, which is in capitals or not: train/ and val/, Training/ and Testing/, train2017/ and
    val2017/, images/train/ and images/val/. Folders of images beside them are named in one warning.

    Raises:
        ConfigurationError: if several folders have both.
    """
    if (here := _pair(root)) is not None:
        _warn_of_others(root, _folders_beside(*here))
        return here
    pairs = [pair for name in _folders(root) if (pair := _pair(root / name)) is not None and _has_images(pair[0])]
    if len(pairs) > 1:
        names = ", ".join(train.parent.name for train, _ in pairs[:5])
        raise ConfigurationError(
            f"{len(pairs)} folders of {root} have training images and a probe of their own ({names}): point "
            "--data.root at one of them, or put the classes below one train and one val."
        )
    for train, probe in pairs:
        _warn_of_others(root, _folders_beside(train.parent) + _folders_beside(train, probe))
        return train, probe
    return None


def find_train_alone(root: Path) -> Path | None:
    """The folder of training images where none is known to be the probe.

    With images straight in it and other folders beside it, ``train`` is a class.
    """
    found = [root / name for name in _folders(root) if name.lower() in TRAIN]
    if len(found) != 1:
        return None
    beside = _folders_beside(*found)
    if beside and not _folders(found[0]):
        return None
    _warn_of_others(root, beside, f"; call the folder to measure {', '.join(PROBES)}")
    return found[0]


def _pair(parent: Path) -> tuple[Path, Path] | None:
    """Two folders of ``parent`` whose names are alike but for ``train`` in the one and ``val`` in the other."""
    names = {name.lower(): name for name in _folders(parent)}
    for name in sorted(names, key=len):  # train itself before train_small
        for probe in PROBES:
            other, replaced = re.subn(rf"(?<![a-z])({'|'.join(TRAIN)})(?![a-z])", probe, name, count=1)
            if replaced and other in names:
                return parent / names[name], parent / names[other]
    return None


def _warn_of_others(root: Path, folders: list[Path], advice: str = "") -> None:
    if folders:
        names = ", ".join(repr(os.fspath(folder.relative_to(root))) for folder in folders[:5])
        rank_zero_warn(f"Folders of {root} that are neither training images nor probe are left out: {names}{advice}.")


def _folders_beside(*used: Path) -> list[Path]:
    """Folders of images next to these that are no probe by their names."""
    beside = [used[0].parent / name for name in _folders(used[0].parent) if name.lower() not in PROBES]
    return [folder for folder in beside if folder not in used and _has_images(folder)]


def _folders(root: Path) -> list[str]:
    return [entry.name for entry in _entries(os.fspath(root))[0] if _is_folder(entry)]


def _has_images(root: Path) -> bool:
    return any(os.path.splitext(path)[1].lower() in EXTENSIONS for path in visible_files(root))
