"""Any data set of images that the package ``datasets`` can load, by its name."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from jepa_train.data.base import PictureDataModule
from jepa_train.data.transforms import UNREADABLE, PictureToTensor, shuffled
from jepa_train.errors import ConfigurationError


class HuggingFaceImages(Dataset[dict[str, Any]]):
    """One split as normalised RGB squares, in a fixed random order: the first stand for all.

    Args:
        split: a ``datasets.Dataset``.
        image_column: column of decoded images.
        label_column: column of class numbers or names; ``None`` leaves labels out.
        names: class names in the order of their numbers, where the column holds names.
        to_tensor: map from a picture to a tensor.
    """

    def __init__(
        self, split: Any, *, image_column: str, label_column: str | None, names: list[str], to_tensor: PictureToTensor
    ) -> None:
        self._split = split
        self._order = np.array(shuffled(range(len(split))))
        self._image_column = image_column
        self._label_column = label_column
        self._numbers = {name: number for number, name in enumerate(names)}
        self._to_tensor = to_tensor

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image (3, H, W), and label if there are labels.

        Raises:
            ConfigurationError: if the row has no readable image.
        """
        number = int(self._order[index])
        try:
            row = self._split[number]
        except UNREADABLE as error:
            raise ConfigurationError(
                f"row {number} of the data set cannot be read ({_one_line(error)}): repair or remove it."
            ) from None
        if row[self._image_column] is None:
            raise ConfigurationError(f"row {number} of the data set has no image: remove it.")
        sample: dict[str, Any] = {"image": self._to_tensor(row[self._image_column])}
        if self._label_column is not None:
            label = row[self._label_column]
            sample["label"] = self._numbers[label] if isinstance(label, str) else int(label)
        return sample


class HuggingFaceDataModule(PictureDataModule):
    """Images of a data set on the Hugging Face hub, or of a folder that ``datasets.load_dataset`` understands.

    Args:
        name: name of the data set, or a folder of images or Parquet files.
        config_name: configuration of the data set, if it has several.
        train_split: split to train on, or a part of one such as ``train[:90%]``.
        probe_split: split to measure, or a part of one.
        image_column: column of images.
        label_column: column of classes, numbers or names; ``None`` if there are none.
        image_size: height and width that images are brought to, in pixels.
        background: color behind transparent pixels, a name or #rrggbb.
        crop_scale: train on random crops with this smallest and largest share of the area, made by the workers.
        flip: mirror training images left and right with probability one half.
        batch_size: images per process.
        num_workers: worker processes of each loader.
        seed: seed of the order of the training images, and of crops and flips.
    """

    def __init__(
        self,
        name: str,
        config_name: str | None = None,
        train_split: str = "train",
        probe_split: str = "test",
        image_column: str = "image",
        label_column: str | None = "label",
        image_size: int = 96,
        background: str = "white",
        crop_scale: tuple[float, float] | None = None,
        flip: bool = False,
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
        self.name = name
        self.config_name = config_name
        self.train_split = train_split
        self.probe_split = probe_split
        self.image_column = image_column
        self.label_column = label_column
        self._loaded: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Download on one process only."""
        self._load(self.train_split)
        self._load(self.probe_split)

    def pictures(self, part: Literal["train", "probe"], to_tensor: PictureToTensor) -> HuggingFaceImages:
        """One of the two splits."""
        return HuggingFaceImages(
            self._load(self.train_split if part == "train" else self.probe_split),
            image_column=self.image_column,
            label_column=self.label_column,
            names=self._class_names(),
            to_tensor=to_tensor,
        )

    @property
    def probe_advice(self) -> str:
        """A larger part of the data set."""
        return "name a larger part of the data set with --data.probe_split, such as train[90%:]"

    def _class_names(self) -> list[str]:
        """Names that stand in the label column of either split, sorted; none where it holds numbers."""
        if self.label_column is None:
            return []
        splits = [self._load(split) for split in (self.train_split, self.probe_split)]
        if getattr(splits[0].features[self.label_column], "dtype", None) not in ("string", "large_string"):
            return []
        return sorted({name for split in splits for name in split.unique(self.label_column)})

    def _load(self, split: str) -> Any:
        """A ``datasets.Dataset`` whose columns are there.

        Raises:
            ConfigurationError: without the package, or if data set, split or column do not exist.
        """
        if split not in self._loaded:
            datasets = _datasets()
            try:
                loaded = datasets.load_dataset(self.name, self.config_name, split=split)
            # unknown configuration or split; unknown name, or no connection; a data set that is a script
            except (ValueError, OSError, RuntimeError) as error:
                raise ConfigurationError(
                    f"split {split!r} of the data set {self.name!r} cannot be loaded: {_one_line(error)}"
                ) from None
            self._check_columns(loaded, datasets.Image)
            self._loaded[split] = loaded
        return self._loaded[split]

    def _check_columns(self, loaded: Any, image: type) -> None:
        features = dict(loaded.features)
        pictures = [column for column, feature in features.items() if isinstance(feature, image)]
        if self.image_column not in pictures:
            raise ConfigurationError(
                f"{self.name!r} has no column of images {self.image_column!r}: set --data.image_column to one of "
                f"{pictures} (its columns are {list(features)})."
            )
        if self.label_column is not None and self.label_column not in features:
            raise ConfigurationError(
                f"{self.name!r} has no column {self.label_column!r}: set --data.label_column to one of "
                f"{list(features)}, or to null."
            )


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigurationError(
            "data sets of the Hugging Face hub need the package datasets, which is missing: pip install -e '.[hub]'."
        ) from None
    return datasets


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
