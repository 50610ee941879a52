"""A set of samples of which each process reads its own part, in batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..runtime.concise import Concise
from ..runtime.distributed import fail_together
from .samples import Samples, find_label, gather_by_index

CHUNK = 256
KEPT_BYTES = 2**29
NO_LABEL = -1

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(repr=False)
class Part(Concise):
    """What one process reads of a set.

    Attributes:
        samples: the data.
        positions: (N,) of the set in the data; equal on all processes.
        rank, world_size: of the process.
    """

    samples: Samples
    positions: Tensor
    rank: int
    world_size: int
    _kept: list[Batch] | None = None

    @property
    def mine(self) -> Tensor:
        """(n,) indices into the set, dealt in turns: equally many for each process, the first repeated if need be.

        A process with fewer would leave a collective out.
        """
        rounds = -(-len(self.positions) // self.world_size)
        return (self.rank + self.world_size * torch.arange(rounds)) % len(self.positions)

    def batches(self) -> Iterator[Batch]:
        """Indices (b,), inputs (b, ...) and labels (b,), -1 where there is none, on the CPU.

        What takes no more than half a GiB is kept; the rest is read again the next time.
        """
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for indices in self.mine.split(CHUNK):
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
        """The set's first input, (1, ...)."""
        return self._read(int(self.positions[0]))[0]

    def _read(self, position: int) -> tuple[Tensor, int]:
        """One sample, (1, ...) and its label.

        A training set that augments at random gives the same whichever process reads it, and whenever.
        """
        random.seed(position)
        np.random.seed(position % 2**32)
        torch.default_generator.manual_seed(position)
        sample = self.samples.dataset[position]
        label = find_label(sample, self.samples.labels)
        return replace(self.samples, dataset=[sample]).read([0]), NO_LABEL if label is None else label


def everywhere(
    part: Part, functions: Mapping[str, Callable[[Tensor, Tensor], Tensor]], *, device: torch.device
) -> dict[str, Tensor]:
    """Values of the whole set, each process computing its part, on the CPU and the same on all of them.

    Args:
        part: this process's.
        functions: name to a function of inputs (b, ...) and indices (b,) to (b, ...); their labels come as ``labels``.
        device: where the process group's backend takes tensors from.

    Raises:
        MeasurementError: on every process, if one failed.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (*functions, "labels")}
    with fail_together(device):
        for indices, inputs, labels in part.batches():
            for name, function in functions.items():
                found[name].append(function(inputs, indices))
            found["labels"].append(labels)
        local = {name: torch.cat(values).to(device) for name, values in found.items()}
    return {name: gather_by_index(part.mine.to(device), values) for name, values in local.items()}
