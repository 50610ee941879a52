"""Any folder of images, flat, nested, or in the layout of ImageNet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from jepa_train.data.base import PictureDataModule
from jepa_train.data.folders import (
    Listing,
    find_splits,
    find_train_alone,
    readable_images,
    warn_of_mixed_splits,
    warn_of_skipped,
)
from jepa_train.data.transforms import UNREADABLE, PictureToTensor, shuffled
from jepa_train.errors import ConfigurationError, counted, some_of


class ImageFiles(Dataset[dict[str, Any]]):
    """Image files as normalised RGB squares, with the folder they lie in as label.

    They are in a fixed random order: sorted by folder, the first ones would be of few classes, and it is these that
    monitor and nearest neighbours measure.

    Args:
        root: the folder that ``paths`` are relative to.
        paths: images.
        labels: number of each folder, as it stands in ``paths``; empty leaves labels out.
        to_tensor: map from a picture to a tensor.
    """

    def __init__(self, root: Path, paths: Sequence[str], *, labels: dict[str, int], to_tensor: PictureToTensor) -> None:
        self.root = os.fspath(root)
        paths = shuffled(paths)
        # arrays: workers share them, whereas each would end up with its own copy of a million Python strings
        self._paths = np.array([os.fsencode(path) for path in paths])
        self._labels = np.array([labels[os.path.dirname(path)] for path in paths]) if labels else None
        self._to_tensor = to_tensor

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def filenames(self) -> list[str]:
        """Paths relative to the folder, in the order of the images."""
        return [os.fsdecode(path) for path in self._paths]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image (3, H, W), and label if there are labels.

        Raises:
            ConfigurationError: if the file is not a readable image.
        """
        path = os.path.join(self.root, os.fsdecode(self._paths[index]))
        try:
            with Image.open(path) as image:
                image.load()
        except UNREADABLE as error:
            raise ConfigurationError(f"{path} cannot be read as an image ({error}): repair or remove it.") from None
        sample: dict[str, Any] = {"image": self._to_tensor(image)}
        if self._labels is not None:
            sample["label"] = int(self._labels[index])
        return sample


class ImageFolderDataModule(PictureDataModule):
    """All images below a folder; the folder an image lies in is its label, if there are several.

    Where there are folders ``train`` and ``val``, as in ImageNet, these are the training images and the probe, and a
    folder's number is the same in both; other names that mean the same are known too, see
    :func:`jepa_train.data.folders.find_splits`. Otherwise the probe is held out from all images; from those of
    ``train`` alone, if that holds folders of its own or is the only folder. What is no image is left out, see
    :func:`jepa_train.data.folders.readable_images`.

    Args:
        root: folder of the images.
        image_size: height and width that images are brought to, in pixels.
        background: color behind transparent pixels, a name or #rrggbb.
        crop_scale: train on random crops of the full-resolution images, with this smallest and largest share of their
            area, such as [0.3, 1.0]; the workers make them. Default: the whole image, with its longer side cut.
        flip: mirror training images left and right with probability one half.
        probe_share: share of the images that is held out and measured: at least one image, spread evenly over the
            sorted paths. It has no effect if the folder has one folder for training and one to measure. Default: a
            tenth, or 128 images if that is more, but at most a quarter.
        batch_size: images per process.
        num_workers: worker processes of each loader.
        seed: seed of the order of the training images, and of crops and flips.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 96,
        background: str = "white",
        crop_scale: tuple[float, float] | None = None,
        flip: bool = False,
        probe_share: float | None = None,
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
        if probe_share is not None and not 0.0 < probe_share < 1.0:
            raise ConfigurationError(f"probe_share must lie between 0 and 1, got {probe_share}.")
        self.root = Path(root)
        self.probe_share = probe_share
        self._splits: tuple[Listing, Listing] | None = None

    def pictures(self, part: Literal["train", "probe"], to_tensor: PictureToTensor) -> ImageFiles:
        """Images of ``train`` or of ``val``; where there are no such folders, those that are held out are the probe."""
        splits = self._train_and_probe()
        folders = sorted({os.path.dirname(path) for split in splits for path in split.paths})
        # one class is none
        labels = {folder: label for label, folder in enumerate(folders)} if len(folders) > 1 else {}
        split = splits[0 if part == "train" else 1]
        return ImageFiles(split.root, split.paths, labels=labels, to_tensor=to_tensor)

    @property
    def probe_advice(self) -> str:
        """More images in the probe's own folder, or a larger share."""
        train, probe = self._train_and_probe()
        return f"put more images into {probe.root}" if probe.root != train.root else "raise --data.probe_share"

    def _train_and_probe(self) -> tuple[Listing, Listing]:
        if self._splits is None:
            self._splits = self._known_splits() or self._held_out()
        return self._splits

    def _known_splits(self) -> tuple[Listing, Listing] | None:
        splits = find_splits(self.root)
        if splits is None:
            return None
        train, probe = (readable_images(folder, at_least=1) for folder in splits)
        warn_of_skipped(train, probe)
        _warn_of_other_folders(train, probe)
        return train, probe

    def _held_out(self) -> tuple[Listing, Listing]:
        found = readable_images(find_train_alone(self.root) or self.root)
        warn_of_skipped(found)
        warn_of_mixed_splits(found.paths)
        count = len(found.paths)
        is_probe = held_out(count, default_share(count) if self.probe_share is None else self.probe_share)
        return found.take(~is_probe), found.take(is_probe)


def default_share(count: int) -> float:
    """Choose the share of ``count`` images to measure: statistics need more images than an embedding has dimensions."""
    return max(0.1, min(128 / count, 0.25))


def held_out(count: int, share: float) -> NDArray[np.bool_]:
    """Choose the images of the probe, (count,) true or false: the given share of them, evenly spread.

    Where there are two or more, at least one is, and at least one is not.
    """
    # a share such as 0.29 is a little less in binary than in decimal, and 100 * 0.29 would lack one
    steps = np.floor(np.arange(count + 1) * share + 1e-9)
    chosen: NDArray[np.bool_] = np.diff(steps) > 0
    chosen[0], chosen[-1] = False, chosen[-1] or not chosen[1:].any()
    return chosen


def _warn_of_other_folders(train: Listing, probe: Listing) -> None:
    """Labels are compared by folder, so a probe in other folders measures nothing."""
    ours, theirs = ({os.path.dirname(path) for path in split.paths} for split in (train, probe))
    if unknown := sorted(theirs - ours):
        folders = counted(
            len(unknown),
            f"folder of {probe.root} is not in {train.root}, so its label is unknown in training",
            f"folders of {probe.root} are not in {train.root}, so their labels are unknown in training",
        )
        rank_zero_warn(f"{folders}: {some_of([repr(name) for name in unknown], 5)}.")
