"""The shard of a set that each process reads, at once or in batches, and the gathering of what it finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from ..runtime.concise import Concise
from ..runtime.distributed import fail_together, in_group
from .samples import Samples, find_label

CHUNK = 256
KEPT_BYTES = 2**29
NO_LABEL = -1

Batch = tuple[Tensor, Tensor, Tensor]


def shard_indices(total: int, *, global_rank: int, world_size: int) -> Tensor:
    """Indices (n,) of one process's shard: every ``world_size``-th of ``total`` samples, from ``global_rank`` on.

    All processes get equally many: the first samples fill up the last round, and :func:`gather_by_index` drops repeats.
    A process with fewer would leave a collective out.
    """
    rounds = -(-total // world_size)
    return (global_rank + world_size * torch.arange(rounds)) % total


@dataclass(frozen=True, repr=False)
class Shard(Concise):
    """The shard of one process, read at once.

    Attributes:
        indices: (n,) positions in the set.
        inputs: (n, ...) on the CPU.
    """

    indices: Tensor
    inputs: Tensor

    @classmethod
    def read(cls, samples: Samples, count: int, *, global_rank: int = 0, world_size: int = 1) -> Shard:
        """Read this process's shard of the first ``count`` samples."""
        indices = shard_indices(min(count, len(samples)), global_rank=global_rank, world_size=world_size)
        return cls(indices, samples.read(indices.tolist()))


@dataclass(repr=False)
class BatchedShard(Concise):
    """The shard of one process, read in batches with labels, each sample with random numbers of its own.

    Attributes:
        samples: data of the set.
        positions: (N,) positions of the set in the data, equal on all processes.
        global_rank: number of the process.
        world_size: number of processes.
    """

    samples: Samples
    positions: Tensor
    global_rank: int
    world_size: int
    _kept: list[Batch] | None = None

    @property
    def indices(self) -> Tensor:
        """(n,) indices into the set."""
        return shard_indices(len(self.positions), global_rank=self.global_rank, world_size=self.world_size)

    def batches(self) -> Iterator[Batch]:
        """Read indices (b,), inputs (b, ...) and labels (b,), -1 where there is none, on the CPU.

        What takes no more than half a GiB is kept; the rest is read again the next time.
        """
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for indices in self.indices.split(CHUNK):
            read = [self._read(int(self.positions[i])) for i in indices]
            shapes = {tuple(one.shape[1:]) for one, _ in read}
            if len(shapes) > 1:
                raise ValueError(f"inputs differ in shape ({sorted(shapes)[:3]}): pass a dataset that resizes them.")
            inputs = torch.cat([one for one, _ in read])
            batch = (indices, inputs, torch.tensor([label for _, label in read]))
            size += inputs.numel() * inputs.element_size()
            if size <= KEPT_BYTES:
                kept.append(batch)
            yield batch
        if size <= KEPT_BYTES:
            self._kept = kept

    def peek(self) -> Tensor:
        """Read the set's first input, (1, ...)."""
        return self._read(int(self.positions[0]))[0]

    def _read(self, position: int) -> tuple[Tensor, int]:
        """Read one sample, (1, ...) and its label.

        A training set that augments at random gives the same whichever process reads it, and whenever.
        """
        random.seed(position)
        np.random.seed(position % 2**32)
        torch.default_generator.manual_seed(position)
        sample = self.samples.dataset[position]
        label = find_label(sample, self.samples.labels)
        return replace(self.samples, dataset=[sample]).read([0]), NO_LABEL if label is None else label


def compute_everywhere(
    shard: BatchedShard, functions: Mapping[str, Callable[[Tensor, Tensor], Tensor]], *, device: torch.device
) -> dict[str, Tensor]:
    """Compute values of the whole set, each process on its shard; they are gathered on the CPU of all of them.

    Args:
        shard: shard of this process.
        functions: name to a function of inputs (b, ...) and indices (b,) to (b, ...); their labels come as ``labels``.
        device: place of tensors that the process group's backend takes.

    Raises:
        MeasurementError: on every process, if one failed.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (*functions, "labels")}
    with fail_together(device):
        for indices, inputs, labels in shard.batches():
            for name, function in functions.items():
                found[name].append(function(inputs, indices))
            found["labels"].append(labels)
        local = {name: torch.cat(values).to(device) for name, values in found.items()}
    return {name: gather_by_index(shard.indices.to(device), values) for name, values in local.items()}


def gather_by_index(indices: Tensor, values: Tensor) -> Tensor:
    """Gather the processes' values in the order of their positions, on the CPU, each position once.

    Uneven shards are fine. Every process must call it, and all get the same result.

    Args:
        indices: (n,) positions of this process's values.
        values: (n, ...), one for each.

    Returns:
        (N, ...) with N the number of distinct positions.
    """
    if in_group():
        indices = torch.cat(gather_all_tensors(indices.to(values.device)))
        values = torch.cat(gather_all_tensors(values.contiguous()))
    distinct, order = torch.unique(indices.cpu(), return_inverse=True)
    first = torch.full((len(distinct),), len(order), dtype=torch.long)
    first.scatter_reduce_(0, order, torch.arange(len(order)), reduce="amin")
    return values.cpu()[first]
