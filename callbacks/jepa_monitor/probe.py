"""A fixed, indexed set of inputs: read by index, dealt to processes, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics.utilities.distributed import gather_all_tensors

ImagesKey = str | int | Callable[[Any], Tensor] | None
USUAL_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs")


@dataclass(frozen=True)
class Shard:
    """One process's part of a probe.

    Attributes:
        indices: (n,) positions in the probe.
        inputs: (n, ...) on the CPU.
    """

    indices: Tensor
    inputs: Tensor


def load_shard(dataset: Any, *, count: int, rank: int, world_size: int, images: ImagesKey = None) -> Shard:
    """Every ``world_size``-th of the first ``count`` samples, from ``rank`` on.

    A process left without a sample takes the first one: each process must take part in every collective, and
    :func:`gather_by_index` drops the repeat.

    Raises:
        ValueError: for an empty dataset, or one without a length and access by index.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError(
            f"{type(dataset).__name__} has no length or no access by index, so a fixed probe cannot be read from it: "
            "pass probe=, a map-style dataset or a tensor."
        )
    total = min(count, len(dataset))
    if total == 0:
        raise ValueError(f"the probe is empty: {type(dataset).__name__} has no samples.")
    indices = list(range(rank, total, world_size)) or [0]
    return Shard(torch.tensor(indices), read_inputs(dataset, indices, images=images))


def read_inputs(dataset: Any, indices: Sequence[int], *, images: ImagesKey = None) -> Tensor:
    """Inputs (n, ...) at the given positions, on the CPU.

    Raises:
        ValueError: if they are not floating-point.
    """
    if isinstance(dataset, Tensor):
        inputs = dataset[torch.as_tensor(indices)]
    else:
        inputs = find_images(default_collate([dataset[i] for i in indices]), images)
    if not inputs.is_floating_point():
        raise ValueError(
            f"probe inputs are {inputs.dtype}; a Jacobian needs floating-point inputs: convert them first."
        )
    return inputs.detach().cpu()


def find_images(batch: Any, key: ImagesKey = None) -> Tensor:
    """The input tensor of a batch: a tensor, or a member of a tuple, mapping or dataclass.

    Args:
        batch: any of these.
        key: a mapping's key, a position, an attribute, or a function of the batch. ``None`` takes the first of a
            sequence, or the first of image, images, pixel_values, img, x, input, inputs.

    Raises:
        ValueError: if nothing fits; the message names what there is.
    """
    if callable(key):
        return key(batch)
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        members: Mapping[Any, Any] = batch
    elif isinstance(batch, Sequence):
        members = dict(enumerate(batch))
    elif is_dataclass(batch):
        members = vars(batch)
    else:
        raise ValueError(
            f"cannot find images in a batch of type {type(batch).__name__}: pass images=, a function of it."
        )
    candidates = (key,) if key is not None else (0,) if isinstance(batch, Sequence) else USUAL_KEYS
    for candidate in candidates:
        if isinstance(members.get(candidate), Tensor):
            return cast("Tensor", members[candidate])
    raise ValueError(
        f"found no tensor under {', '.join(map(repr, candidates))} in a batch with {', '.join(map(repr, members))}: "
        "pass images=, a key or a function of the batch."
    )


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
