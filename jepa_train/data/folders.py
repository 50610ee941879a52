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

from jepa_train.data.transforms import UNREADABLE
from jepa_train.errors import ConfigurationError, counted, some_of

# what Pillow reads by itself
STILL_PICTURES = (
    ".apng .avif .bmp .dds .dib .gif .icns .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .pbm .pcx .pfm .pgm "
    ".png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp"
)
EXTENSIONS = frozenset(STILL_PICTURES.split())
CHECKED_AT_START = 10_000  # files; of more than that, reading every header would take minutes
TRAIN = ("train", "training", "trainval")
PROBES = ("val", "validation", "valid", "dev", "test", "testing", "eval", "evaluation")  # the first that there is
SAYS_NOTHING = ("set", "sets", "data", "dataset", "images", "image", "imgs", "img", "pictures", "split", "folder")
_GLUED = re.compile(rf"^({'|'.join((*TRAIN, *PROBES))})({'|'.join(SAYS_NOTHING)})$")  # trainset
_BETWEEN_WORDS = re.compile(r"[\W_]+|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


@dataclass(frozen=True)
class Listing:
    """Images below a folder.

    Attributes:
        root: the folder.
        paths: images, relative to the folder, sorted.
        skipped: how many files were left out for their suffix, by suffix.
        dangling: links, relative to the folder, that lead to no file.
    """

    root: Path
    paths: list[str]
    skipped: Counter[str]
    dangling: list[str]

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
    listing = image_files(root)
    found, skipped, dangling = listing.paths, listing.skipped, listing.dangling
    unreadable = [] if len(found) > check_at_most else [path for path in found if not _is_readable(root / path)]
    if unreadable:
        are_left_out = counted(len(unreadable), "unreadable file is left out", "unreadable files are left out")
        rank_zero_warn(f"{are_left_out}: {some_of(unreadable, 10)}.")
    left_out = set(unreadable)
    readable = [path for path in found if path not in left_out]
    if len(readable) < at_least:
        others = " and ".join([*([by_suffix(skipped)] if skipped else []), *_named_links(dangling)])
        others = f" (and {others})" if others else ""
        images = counted(len(readable), "readable image")
        raise ConfigurationError(f"{root} holds {images}{others}; training and probe need at least {at_least}.")
    return Listing(root, readable, skipped, dangling)


def image_files(root: Path) -> Listing:
    """Files below a folder that are images by their suffix; none is opened.

    Raises:
        ConfigurationError: if there is no such folder, or one of its folders cannot be read.
    """
    found, skipped, dangling = [], Counter[str](), list[str]()
    for path in visible_files(root, dangling):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in EXTENSIONS:
            found.append(path)
        else:
            skipped[suffix] += 1
    return Listing(root, sorted(found), skipped, dangling)


def warn_of_skipped(*listings: Listing) -> None:
    """Log one warning of files that were left out for their suffix, and of links that lead to no file."""
    skipped = sum((listing.skipped for listing in listings), Counter[str]())
    dangling = [os.path.join(listing.root.name, link) for listing in listings for link in listing.dangling]
    files = counted(
        skipped.total(), "file whose name is not that of an image", "files whose names are not those of images"
    )
    reasons = [*([f"{files} ({by_suffix(skipped)})"] if skipped else []), *_named_links(dangling)]
    if reasons:
        rank_zero_warn(f"Skipped: {', and '.join(reasons)}.")


def warn_of_mixed_splits(paths: Iterable[str]) -> None:
    """Log one warning where images of folders whose names begin like ``train`` and like ``val`` are mixed."""
    folders = {folder for path in {os.path.dirname(path) for path in paths} for folder in path.split(os.sep) if folder}
    firsts = {folder: next(iter(_words(folder)), "") for folder in sorted(folders)}
    train = [folder for folder, word in firsts.items() if word in TRAIN]
    probe = [folder for folder, word in firsts.items() if word in PROBES]
    if train and probe:
        rank_zero_warn(
            f"Images below {train[0]!r} and below {probe[0]!r} are mixed, and the names of their folders count as "
            "classes: if one folder is for training and one to measure, name them train and val, and put both into one "
            "folder."
        )


def _named_links(dangling: list[str]) -> list[str]:
    """Name the links that lead to no file, and their number; empty where there are none."""
    if not dangling:
        return []
    links = counted(
        len(dangling),
        "link that leads to no file (is the file fetched?)",
        "links that lead to no file (are the files fetched?)",
    )
    return [f"{links}: {some_of(dangling, 5)}"]


def by_suffix(skipped: Counter[str]) -> str:
    """Such as ``7 .txt, 2 without a suffix``, the most frequent ten."""
    named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in skipped.most_common(10)]
    return ", ".join([*named, "others"] if len(skipped) > len(named) else named)


def visible_files(root: Path, dangling: list[str] | None = None) -> Iterator[str]:
    """Files that are not hidden, relative to ``root``; the entries of a directory know their kind, so none is opened.

    Links to folders are followed, the last: a folder is read once, under its own name where it has one below ``root``.

    Args:
        root: the folder.
        dangling: gets the links that lead nowhere, as git-annex and dvc leave them.

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
            elif entry.is_symlink() and dangling is not None and not os.path.exists(entry.path):
                dangling.append(name)
    if repeated:
        left_out = counted(
            len(repeated),
            "link leads to a folder that is read under another name, and is left out",
            "links lead to folders that are read under another name, and are left out",
        )
        rank_zero_warn(f"{left_out}: {some_of(repeated, 5)}.")


def _entries(folder: str) -> tuple[list[os.DirEntry[str]], tuple[int, int]]:
    """List the entries of a directory that are not hidden, sorted by name, and identify the directory."""
    if not os.path.isdir(folder):
        raise ConfigurationError(f"there is no folder {folder}: point --data.root at a folder of images.")
    try:
        identity = _identity(folder)
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not _is_hidden(entry)]
    except OSError as error:
        raise ConfigurationError(
            f"the folder {folder} cannot be read ({error.strerror}): make it readable, or remove it."
        ) from None
    return sorted(visible, key=lambda entry: entry.name), identity


def _identity(folder: str | Path) -> tuple[int, int]:
    """Identify a folder, whatever name it is reached by."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # of a link that leads to itself the entry knows nothing, and raises
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    """Recognise names of editors and operating systems (``.ipynb_checkpoints``, ``._1.png``, ``__MACOSX``)."""
    return entry.name.startswith(".") or (entry.name.startswith("__") and _is_folder(entry))


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except UNREADABLE:
        return False
    return True


def find_splits(root: Path) -> tuple[Path, Path] | None:
    """Folders of training images and of the probe: in ``root``, or in the only folder below it that has both.

    Their names differ in one word, which is in capitals or not: train/ and val/, Training/ and Testing/, train2017/ and
    val2017/, TrainingSet/ and TestSet/, data/images/train/ and data/images/val/. Folders of images beside them are
    named in one warning.

    Raises:
        ConfigurationError: if several folders at the same depth have both.
    """
    if (here := _pair(root)) is not None:
        _warn_of_others(root, _folders_beside(*here))
        return here
    for level in _levels_below(root):
        pairs = [pair for folder in level if (pair := _pair(folder)) is not None and _has_images(pair[0])]
        if len(pairs) > 1:
            names = some_of([os.fspath(train.parent.relative_to(root)) for train, _ in pairs], 5)
            raise ConfigurationError(
                f"{len(pairs)} folders of {root} have training images and a probe of their own ({names}): point "
                "--data.root at one of them, or put the classes below one train and one val."
            )
        for train, probe in pairs:
            above = [folder for folder in train.parents if root in folder.parents]
            beside = [other for folder in reversed(above) for other in _folders_beside(folder)]
            _warn_of_others(root, beside + _folders_beside(train, probe))
            return train, probe
    return None


def _levels_below(root: Path) -> Iterator[list[Path]]:
    """The folders of ``root``, then theirs, and so on; each once, whatever links lead to it."""
    level, seen = [root], {_identity(root)}
    while level:
        below = []
        for folder in (parent / name for parent in level for name in _folders(parent)):
            if _identity(folder) not in seen:
                seen.add(_identity(folder))
                below.append(folder)
        yield below
        level = below


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
    known = [(name, *found) for name in _folders(parent) if (found := _word_and_others(name)) is not None]
    pairs = [
        # the same name but for the word; train itself before train_small; the first probe that there is
        (others != beside, len(train), PROBES.index(kind), train[0].islower() != probe[0].islower(), train, probe)
        for train, word, others in known
        for probe, kind, beside in known
        if word in TRAIN and kind in PROBES and _telling(others) == _telling(beside)
    ]
    return (parent / min(pairs)[-2], parent / min(pairs)[-1]) if pairs else None


def _word_and_others(name: str) -> tuple[str, list[str]] | None:
    """The first word of a name that means training images or a probe, and all words with a gap in its place."""
    words = _words(name)
    for place, word in enumerate(words):
        if word in TRAIN + PROBES:
            return word, [*words[:place], "", *words[place + 1 :]]
    return None


def _telling(words: list[str]) -> list[str]:
    return [word for word in words if word not in SAYS_NOTHING]


def _words(name: str) -> list[str]:
    """Words of a name in small letters: TrainingSet, training_set and trainingset are the same two."""
    apart = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return [part for word in _BETWEEN_WORDS.split(apart) for part in _GLUED.sub(r"\1 \2", word).split()]


def _warn_of_others(root: Path, folders: list[Path], advice: str = "") -> None:
    if folders:
        left_out = counted(
            len(folders),
            f"folder of {root}, neither training images nor probe, is left out",
            f"folders of {root}, neither training images nor probe, are left out",
        )
        names = some_of([repr(os.fspath(folder.relative_to(root))) for folder in folders], 5)
        rank_zero_warn(f"{left_out}: {names}{advice}.")


def _folders_beside(*used: Path) -> list[Path]:
    """Folders of images next to these that are no probe by their names."""
    twins = {folder.name.lower() for folder in used}  # Val beside val
    names = _folders(used[0].parent)
    beside = [used[0].parent / name for name in names if name.lower() not in PROBES or name.lower() in twins]
    return [folder for folder in beside if folder not in used and _has_images(folder)]


def _folders(root: Path) -> list[str]:
    return [entry.name for entry in _entries(os.fspath(root))[0] if _is_folder(entry)]


def _has_images(root: Path) -> bool:
    return any(os.path.splitext(path)[1].lower() in EXTENSIONS for path in visible_files(root))
