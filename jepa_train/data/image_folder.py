"""Any folder of images, flat, nested, or in the layout of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from jepa_train.data.base import PictureDataModule
from jepa_train.data.decoding import UNREADABLE
from jepa_train.data.transforms import PictureToTensor, shuffled
from jepa_train.errors import ConfigurationError

EXTENSIONS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
CHECKED_AT_START = 10_000  # files; of more than that, reading every header would take minutes
PROBES = ("val", "validation", "valid", "test")  # names of the folder beside train, the first that there is


class ImageFiles(Dataset[dict[str, Any]]):
    """Image files as normalised RGB squares, with the folder they lie in as label.

    They are in a fixed random order: sorted by folder, the first ones would be of few classes, and it is these that
    monitor and nearest neighbours measure.

    Args:
        root: the folder that ``paths`` are relative to.
        paths: of images.
        labels: number of each folder, as it stands in ``paths``.
        to_tensor: from a picture to a tensor.
    """

    def __init__(self, root: Path, paths: Sequence[str], *, labels: dict[str, int], to_tensor: PictureToTensor) -> None:
        self.root = os.fspath(root)
        paths = shuffled(paths)
        # arrays: workers share them, whereas each would end up with its own copy of a million Python strings
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._labels = np.array([labels[os.path.dirname(path)] for path in paths])
        self._to_tensor = to_tensor

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image (3, H, W) and label.

        Raises:
            ConfigurationError: if the file is not a readable image.
        """
        path = os.path.join(self.root, os.fsdecode(self._paths[index]))
        try:
            with Image.open(path) as image:
                image.load()
        except UNREADABLE as error:
            raise ConfigurationError(f"{path} cannot be read as an image ({error}): repair or remove it.") from None
        return {"image": self._to_tensor(image), "label": int(self._labels[index])}


class ImageFolderDataModule(PictureDataModule):
    """All images below a folder; the folder an image lies in is its label.

    If there are the subfolders ``train`` and ``val`` (or ``validation``, ``valid``, ``test``), as in ImageNet, these
    are the training images and the probe, and a folder's number is the same in both. Otherwise the probe is held out
    from all images; from those of ``train`` alone, if that holds folders of its own or is the only folder.

    Args:
        root: the folder.
        image_size: height and width that images are brought to, in pixels.
        background: color behind transparent pixels, a name or #rrggbb.
        crop_scale: train on random crops of the full-resolution images, with this smallest and largest share of their
            area, such as [0.3, 1.0]; made by the workers. Default: the whole image, its longer side cut.
        flip: mirror training images left and right with probability one half.
        probe_share: share of the images that is held out and measured, at least one, spread evenly over the sorted
            paths; not used where there are the two subfolders.
        batch_size: per process.
        num_workers: of each loader.
        seed: of the order of the training images, and of crops and flips.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 96,
        background: str = "white",
        crop_scale: tuple[float, float] | None = None,
        flip: bool = False,
        probe_share: float = 0.1,
        batch_size: int = 128,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size,
            background=background,
            crop_scale=crop_scale,
            flip=flip,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if not 0.0 < probe_share < 1.0:
            raise ConfigurationError(f"probe_share must lie between 0 and 1, got {probe_share}.")
        self.root = Path(root)
        self.probe_share = probe_share
        self._splits: tuple[_Split, _Split] | None = None

    def pictures(self, part: Literal["train", "probe"], to_tensor: PictureToTensor) -> ImageFiles:
        """Images of ``train`` or of ``val``; where there are no such folders, those that are held out are the probe."""
        splits = self._train_and_probe()
        folders = sorted({os.path.dirname(path) for split in splits for path in split.paths})
        labels = {folder: label for label, folder in enumerate(folders)}
        split = splits[0 if part == "train" else 1]
        return ImageFiles(split.root, split.paths, labels=labels, to_tensor=to_tensor)

    def _train_and_probe(self) -> tuple[_Split, _Split]:
        if self._splits is None:
            probe = next((self.root / name for name in PROBES if (self.root / name).is_dir()), None)
            if probe is not None and (self.root / "train").is_dir():
                self._splits = _Split(self.root / "train"), _Split(probe)
                _warn_of_other_folders(*self._splits)
            else:
                root = self.root / "train" if _is_train_alone(self.root) else self.root
                paths = readable_images(root, at_least=2)
                is_probe = held_out(len(paths), self.probe_share)
                train, held = ([paths[i] for i in np.flatnonzero(chosen)] for chosen in (~is_probe, is_probe))
                self._splits = _Split(root, train), _Split(root, held)
        return self._splits


def held_out(count: int, share: float) -> NDArray[np.bool_]:
    """Which of ``count`` images are of the probe, (count,): the given share of them, evenly spread.

    Where there are two or more, at least one is, and at least one is not.
    """
    # a share such as 0.29 is a little less in binary than in decimal, and 100 * 0.29 would lack one
    steps = np.floor(np.arange(count + 1) * share + 1e-9)
    chosen: NDArray[np.bool_] = np.diff(steps) > 0
    chosen[0], chosen[-1] = False, chosen[-1] or not chosen[1:].any()
    return chosen


def _is_train_alone(root: Path) -> bool:
    """Is there a training set without a known probe beside it? With images straight in it, ``train`` may be a class."""
    if not (root / "train").is_dir():
        return False
    beside = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name != "train")
    if beside and not any(entry.is_dir() for entry in (root / "train").iterdir()):
        return False
    if beside:
        rank_zero_warn(
            f"Training images and probe are both of {root / 'train'}; beside it, {', '.join(map(repr, beside[:5]))} "
            f"are left out: call the folder to measure {', '.join(PROBES)}."
        )
    return True


class _Split:
    """A folder and the paths relative to it; all readable images if none are given."""

    def __init__(self, root: Path, paths: list[str] | None = None) -> None:
        self.root = root
        self.paths = readable_images(root, at_least=1) if paths is None else paths


def _warn_of_other_folders(train: _Split, probe: _Split) -> None:
    """Labels are compared by folder, so a probe in other folders measures nothing."""
    ours, theirs = ({os.path.dirname(path) for path in split.paths} for split in (train, probe))
    if unknown := sorted(theirs - ours):
        rank_zero_warn(
            f"{len(unknown)} folders of {probe.root} are not in {train.root}, so their labels are unknown in training: "
            f"{', '.join(repr(name) for name in unknown[:5])}."
        )


def readable_images(root: Path, *, at_least: int = 2, check_at_most: int = CHECKED_AT_START) -> list[str]:
    """Sorted paths, relative to a folder, of the images below it.

    Of up to ``check_at_most`` files the headers are read, and the unreadable ones are named in one warning; of more,
    a file counts as an image by its name.

    Raises:
        ConfigurationError: if there is no such folder, or fewer than ``at_least`` images.
    """
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {root}: point --data.root at a folder of images.")
    found = sorted(_image_names(os.fspath(root)))
    unreadable = [] if len(found) > check_at_most else [path for path in found if not _is_readable(root / path)]
    if unreadable:
        more = f" and {len(unreadable) - 10} more" if len(unreadable) > 10 else ""
        rank_zero_warn(f"{len(unreadable)} unreadable files are left out: {', '.join(unreadable[:10])}{more}.")
    left_out = set(unreadable)
    readable = [path for path in found if path not in left_out]
    if len(readable) < at_least:
        raise ConfigurationError(
            f"{root} holds {len(readable)} readable images ({', '.join(sorted(EXTENSIONS))}); training and probe need "
            f"at least {at_least}."
        )
    return readable


def _image_names(root: str, below: str = "") -> Iterator[str]:
    """Files named as images, relative to ``root``; a directory's entries know their kind, so no file is looked at."""
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            name = os.path.join(below, entry.name)
            if entry.is_dir():
                yield from _image_names(root, name)
            elif os.path.splitext(name)[1].lower() in EXTENSIONS and entry.is_file():
                yield name


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except UNREADABLE:
        return False
    return True
