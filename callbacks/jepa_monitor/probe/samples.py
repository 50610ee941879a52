"""A fixed set of samples, read by index: where their images and labels are, whatever the dataset."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    default_convert,
)

from ..errors import SettingError

ImagesKey = str | int | Callable[[Any], Tensor] | None
LabelsKey = str | int | Callable[[Any], Any] | None
USUAL_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "view", "views")
NO_CLASS = -2  # a label that is a number or a vector, and no class
USUAL_LABELS = ("label", "labels", "target", "targets", "class", "y")


@dataclass(frozen=True)
class Samples:
    """Samples with a length and access by index, and the place of the inputs in them.

    Attributes:
        dataset: the samples.
        collate: makes a batch of a list of samples; ``None`` stacks their inputs.
        images: a key, a position or a function of a sample (of a batch, with ``collate``).
        labels: the same for class labels.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None
    images: ImagesKey = None
    labels: LabelsKey = None

    @classmethod
    def of(cls, data: Any, *, skip: int = 0, images: ImagesKey = None, labels: LabelsKey = None) -> Samples:
        """Open a tensor, a tuple of tensors, a list of samples, a map-style dataset, or a DataLoader of one.

        Args:
            data: any of these; read through a copy that has its own cursors, open files and generators.
            skip: samples at the beginning that are left out.
            images, labels: see the attributes.

        Raises:
            ValueError: where there is no sample; :class:`SettingError` for anything else.
        """
        collate = None
        if isinstance(data, DataLoader):
            collate = _collate_of(data)
            data = drawn_from(data)
        if isinstance(data, tuple) and data and all(isinstance(member, Tensor) for member in data):
            data = TensorDataset(*data)
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise SettingError(
                f"{type(data).__name__} has no length or no access by index, so fixed samples cannot be read from it: "
                "pass a map-style dataset or a tensor."
            )
        if len(data) <= skip:
            raise ValueError(f"the data set is empty: {type(data).__name__} has no samples{' left' * bool(skip)}.")
        if skip:
            data = Subset(data, range(skip, len(data)))
        return cls(private_copy(data), collate, images, labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Read the inputs (n, ...) at the given positions, on the CPU.

        Raises:
            ValueError: if they cannot be found or are of different sizes.
        """
        if isinstance(self.dataset, Tensor):
            return self.dataset[torch.as_tensor(indices)].detach().cpu()
        samples = [self.dataset[i] for i in indices]
        if self.collate is not None:
            batch = find_images(self.collate(samples), self.images).detach().cpu()
            if len(batch) != len(samples):
                raise ValueError(
                    f"the DataLoader's collate_fn made {len(batch)} samples of {len(samples)}: pass probe=, a dataset."
                )
            return batch
        inputs = [find_images(sample, self.images).detach().cpu() for sample in samples]
        shapes = {tuple(one.shape) for one in inputs}
        if len(shapes) > 1:
            raise ValueError(
                f"inputs differ in shape ({', '.join(map(str, sorted(shapes)[:3]))}): pass a dataset that resizes them."
            )
        return torch.stack(inputs)

    def read_labels(self, indices: Sequence[int]) -> Tensor | None:
        """Read class labels (n,), or ``None`` where some sample has none."""
        if isinstance(self.dataset, Tensor):
            return None
        found = [find_label(self.dataset[i], self.labels) for i in indices]
        return None if any(label is None or label == NO_CLASS for label in found) else torch.tensor(found)

    def check_keys(self) -> None:
        """Check that the first sample has what ``images`` and ``labels`` name.

        Raises:
            SettingError: if not; the message names what there is.
        """
        sample = self.dataset[0]
        _require_member(sample if self.collate is None else self.collate([sample]), "images", self.images)
        _require_member(sample, "labels", self.labels)


def dataset_of(data: Any) -> Any:
    """The dataset of a DataLoader; anything else is one."""
    return data.dataset if isinstance(data, DataLoader) else data


def drawn_from(loader: DataLoader[Any]) -> Any:
    """The dataset of a DataLoader, of only those samples that its sampler draws."""
    if not isinstance(loader.sampler, SubsetRandomSampler):
        return loader.dataset
    return Subset(loader.dataset, sorted(int(index) for index in loader.sampler.indices))


def origin_of(data: Any) -> tuple[Any, list[int] | None]:
    """The dataset that a DataLoader or subsets take samples from.

    Returns:
        The dataset; and the index in it of each sample, or ``None`` where all are taken in order.
    """
    if isinstance(data, DataLoader):
        return origin_of(drawn_from(data))
    if not isinstance(data, Subset):
        return data, None
    dataset, places = origin_of(data.dataset)
    taken = [int(index) for index in data.indices]
    return dataset, taken if places is None else [places[index] for index in taken]


def first_loader(loaders: Any) -> Any:
    """The first of one or many loaders, nested in lists or dicts; ``None`` if there is none."""
    while isinstance(loaders, (Mapping, list, tuple)):
        loaders = next(iter(loaders.values() if isinstance(loaders, Mapping) else loaders), None)
    inner = getattr(loaders, "iterables", None)  # of Lightning's CombinedLoader
    return loaders if inner is None else first_loader(inner)


def count_loaders(loaders: Any) -> int:
    """Count the loaders, nested in lists or dicts."""
    inner = getattr(loaders, "iterables", None)  # of Lightning's CombinedLoader
    if inner is not None:
        return count_loaders(inner)
    if isinstance(loaders, (Mapping, list, tuple)):
        return sum(map(count_loaders, loaders.values() if isinstance(loaders, Mapping) else loaders))
    return int(loaders is not None)


def is_stream(data: Any) -> bool:
    """Return true for a dataset, or a DataLoader of one, that can only be iterated over."""
    dataset = dataset_of(data)
    by_index = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    return isinstance(dataset, IterableDataset) or (isinstance(dataset, Iterable) and not by_index)


def read_stream(
    data: Any, *, skip: int, count: int, images: ImagesKey = None, labels: LabelsKey = None
) -> tuple[Tensor, ...]:
    """Read inputs (n, ...) and, where there are any, labels (n,) of samples of a stream.

    Args:
        data: a stream, or a DataLoader of one; with ``batch_size=None`` its items are whole batches.
        skip: samples at the beginning that are left out.
        count: samples, at most.
        images, labels: where they are in a sample.

    Raises:
        ValueError: where there are none left.
    """
    is_batched = isinstance(data, DataLoader) and data.batch_size is None and data.batch_sampler is None
    items: list[Any] = []
    for item in private_copy(dataset_of(data)):
        items.extend(find_images(item, images) if is_batched else [item])
        if len(items) >= skip + count:
            break
    items = items[skip : skip + count]
    if not items:
        raise ValueError(
            f"the data set is empty: {type(dataset_of(data)).__name__} has no samples{' left' * bool(skip)}."
        )
    if is_batched:
        return (torch.stack(items),)
    samples = Samples(items, _collate_of(data), images, labels)
    found = samples.read_labels(range(len(items)))
    return (samples.read(range(len(items))), *([] if found is None else [found]))


def _collate_of(data: Any) -> Callable[[list[Any]], Any] | None:
    """Return the function that a DataLoader makes batches with, if it is not torch's own."""
    collate = getattr(data, "collate_fn", None)
    return None if collate in (default_collate, default_convert) else collate


def private_copy(dataset: Any) -> Any:
    """Copy a dataset so that it can be read without moving the original's cursors, generators and open files.

    Shallow, so that data are not copied, but with datasets within it copied likewise, and its generators.
    """
    if isinstance(dataset, (Tensor, list, tuple)):
        return dataset
    try:
        copied = copy.copy(dataset)
        for name, value in vars(copied).items():
            if isinstance(value, torch.Generator):
                setattr(copied, name, value.clone_state())
            elif isinstance(value, (random.Random, np.random.Generator, np.random.RandomState)):
                setattr(copied, name, copy.deepcopy(value))
            elif isinstance(value, Iterator):
                setattr(copied, name, copy.copy(value))
            elif isinstance(value, Dataset):
                setattr(copied, name, private_copy(value))
            elif isinstance(value, list) and value and all(isinstance(member, Dataset) for member in value):
                setattr(copied, name, [private_copy(member) for member in value])
    except Exception:  # what refuses to be copied is read as it is
        return dataset
    return copied


def find_images(batch: Any, key: ImagesKey = None) -> Tensor:
    """Find the input tensor of a sample or batch: a tensor, or a member of a tuple, mapping or dataclass.

    Args:
        batch: any of these, nested (of several views the first is taken).
        key: a mapping's key, a position, an attribute, or a function. ``None`` takes the first of a sequence, or the
            first of image, images, pixel_values, img, x, input, inputs, view, views.

    Raises:
        ValueError: if nothing fits; the message names what there is.
    """
    if callable(key):
        return _as_tensor(key(batch))
    if isinstance(batch, (Tensor, np.ndarray)):
        return _as_tensor(batch)
    members = _members(batch)
    if members is None:
        raise ValueError(
            f"cannot find images in a batch of type {type(batch).__name__}: pass images=, a function of it, or give "
            "the dataset a transform to tensors."
        )
    candidates = (key,) if key is not None else (0,) if isinstance(batch, Sequence) else USUAL_KEYS
    for candidate in candidates:
        if candidate in members and (_is_array(members[candidate]) or _members(members[candidate])):
            return find_images(members[candidate])
    raise ValueError(
        f"found no tensor under {', '.join(map(repr, candidates))} in a batch with {', '.join(map(repr, members))}: "
        "pass images=, a key or a function of the batch."
    )


def find_label(sample: Any, key: LabelsKey = None) -> int | None:
    """Find the class of a sample: the second of a tuple, or label, labels, target, targets, class or y, if it is one.

    A class is a whole number (of any type: 3, 3.0, True), or a vector of zeros with a single one (its position).

    Args:
        sample: tuple, mapping or dataclass.
        key: as in :func:`find_images`; a function gives ``None`` where there is no class.

    Returns:
        The class; ``None`` where there is none, ``NO_CLASS`` for a number or a vector that is no class.
    """
    if callable(key):
        return _class_of(key(sample))
    members = _members(sample) or {}
    candidates = (key,) if key is not None else (1,) if isinstance(sample, Sequence) else USUAL_LABELS
    return _class_of(next((members[candidate] for candidate in candidates if candidate in members), None))


def _class_of(label: Any) -> int | None:
    if not isinstance(label, (Tensor, np.ndarray, np.number, np.bool_, int, float)):
        return None
    values = torch.as_tensor(label)
    if values.is_complex() or values.numel() == 0 or (values.ndim > 1 and values.numel() > 1):
        return None  # an image, or another view of the sample
    values = values.flatten()
    if len(values) == 1:
        number = float(values)
        return int(values) if number.is_integer() else None if math.isnan(number) else NO_CLASS
    is_one_hot = bool(((values == 0) | (values == 1)).all()) and int(values.sum()) == 1
    return int(values.argmax()) if is_one_hot else NO_CLASS


def are_all_different(labels: Tensor) -> bool:
    """Return true where no two of several (N,) labels are equal: as the numbers of samples are, and classes are not."""
    return len(labels) > 1 and len(torch.unique(labels)) == len(labels)


def _require_member(sample: Any, argument: str, key: ImagesKey | LabelsKey) -> None:
    if key is None or callable(key):
        return
    members = _members(sample)
    if members is None or key not in members:
        there = "no members" if members is None else ", ".join(map(repr, members))
        raise SettingError(f"a sample of the probe has no {argument}={key!r}; it has {there}.")


def _members(batch: Any) -> Mapping[Any, Any] | None:
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return dict(enumerate(batch))
    return vars(batch) if is_dataclass(batch) else None


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value)
