"""A fixed, indexed set of inputs: read by index, dealt to processes, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate
from torchmetrics.utilities.distributed import gather_all_tensors

ImagesKey = str | int | Callable[[Any], Tensor] | None
LabelsKey = str | int | Callable[[Any], Any] | None
USUAL_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs", "view", "views")
USUAL_LABELS = ("label", "labels", "target", "targets", "class", "y")


@dataclass(frozen=True)
class Shard:
    """One process's part of a probe.

    Attributes:
        indices: (n,) positions in the probe.
        inputs: (n, ...) on the CPU.
    """

    indices: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Samples:
    """Something with a length and access by index, and where the inputs are in its samples.

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
    def of(cls, data: Any, *, images: ImagesKey = None, labels: LabelsKey = None) -> Samples:
        """From a tensor, a tuple of tensors, a list of samples, a map-style dataset, or a DataLoader of one.

        Args:
            data: any of these.
            images, labels: see the attributes.

        Raises:
            ValueError: for anything else, or where there is no sample.
        """
        collate = None
        if isinstance(data, DataLoader):
            collate = None if data.collate_fn is default_collate else data.collate_fn
            data = data.dataset
        if isinstance(data, tuple) and data and all(isinstance(member, Tensor) for member in data):
            data = TensorDataset(*data)
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise ValueError(
                f"{type(data).__name__} has no length or no access by index, so a fixed probe cannot be read from it: "
                "pass probe=, a map-style dataset or a tensor."
            )
        if len(data) == 0:
            raise ValueError(f"the probe is empty: {type(data).__name__} has no samples.")
        return cls(data, collate, images, labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Inputs (n, ...) at the given positions, on the CPU.

        Raises:
            ValueError: if they cannot be found or are of different sizes.
        """
        if isinstance(self.dataset, Tensor):
            return self.dataset[torch.as_tensor(indices)].detach().cpu()
        samples = [self.dataset[i] for i in indices]
        if self.collate is not None:
            return find_images(self.collate(samples), self.images).detach().cpu()
        inputs = [find_images(sample, self.images).detach().cpu() for sample in samples]
        shapes = {tuple(one.shape) for one in inputs}
        if len(shapes) > 1:
            raise ValueError(
                f"probe inputs differ in shape ({', '.join(map(str, sorted(shapes)[:3]))}): "
                "pass probe=, a dataset that resizes them."
            )
        return torch.stack(inputs)

    def read_labels(self, indices: Sequence[int]) -> Tensor | None:
        """Class labels (n,), or ``None`` where samples have none."""
        if isinstance(self.dataset, Tensor):
            return None
        found = [find_label(self.dataset[i], self.labels) for i in indices]
        return None if any(label is None for label in found) else torch.tensor(found)

    def shard(self, *, count: int, rank: int, world_size: int) -> Shard:
        """Every ``world_size``-th of the first ``count`` samples, from ``rank`` on.

        All processes get equally many: the first samples fill up the last round, and :func:`gather_by_index` drops
        repeats. A process with fewer would leave a collective out.
        """
        total = min(count, len(self))
        rounds = -(-total // world_size)
        indices = [(rank + world_size * turn) % total for turn in range(rounds)]
        return Shard(torch.tensor(indices), self.read(indices))


def stream_of(data: Any) -> Iterable[Any] | None:
    """The dataset, or that of a DataLoader, if it can only be iterated over."""
    dataset = data.dataset if isinstance(data, DataLoader) else data
    by_index = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    return dataset if isinstance(dataset, IterableDataset) or (isinstance(dataset, Iterable) and not by_index) else None


def find_images(batch: Any, key: ImagesKey = None) -> Tensor:
    """The input tensor of a sample or batch: a tensor, or a member of a tuple, mapping or dataclass.

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
    """The class of a sample: the second of a tuple, or label, labels, target, targets, class or y; if it is an integer.

    Args:
        sample: tuple, mapping or dataclass.
        key: as in :func:`find_images`.
    """
    if callable(key):
        return int(key(sample))
    members = _members(sample) or {}
    candidates = (key,) if key is not None else (1,) if isinstance(sample, Sequence) else USUAL_LABELS
    label = next((members[candidate] for candidate in candidates if candidate in members), None)
    if isinstance(label, (Tensor, np.ndarray, np.integer)):
        number = torch.as_tensor(label)
        label = number.item() if number.numel() == 1 else None
    return label if isinstance(label, int) and not isinstance(label, bool) else None


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


def gather_by_index(indices: Tensor, values: Tensor) -> Tensor:
    """Join the processes' values in the order of their probe positions, on the CPU, each position once.

    Uneven shards are fine. Every process must call it, and all get the same result.

    Args:
        indices: (n,) positions of this process's values.
        values: (n, ...).

    Returns:
        (N, ...) with N the number of distinct positions.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        indices = torch.cat(gather_all_tensors(indices.to(values.device)))
        values = torch.cat(gather_all_tensors(values.contiguous()))
    distinct, order = torch.unique(indices.cpu(), return_inverse=True)
    first = torch.full((len(distinct),), len(order), dtype=torch.long)
    first.scatter_reduce_(0, order, torch.arange(len(order)), reduce="amin")
    return values.cpu()[first]
