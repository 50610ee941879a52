"""Batches of images that never cross the border of a part, for the processes that share the parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from jepa_train.ranking.images import FilesToRank, collate

MOST_WORKERS = 8


@dataclass(frozen=True)
class DataSettings:
    """Settings of the reading of images.

    Attributes:
        list: text file of paths, one a line, to rank instead of all images of the folder.
        batch_size: number of images in a forward pass.
        num_workers: number of processes that read images; null means one for each core of this process's share, at most
            8.
        part_size: number of images whose embeddings are written together, the most that an interruption loses; for
            volumes a sixteenth of it.
    """

    list: Path | None = None
    batch_size: int = 64
    num_workers: int | None = None
    part_size: int = 1024


@dataclass(frozen=True)
class Order:
    """Positions of a fixed order, in parts of one size; the last may be shorter.

    Attributes:
        indices: index of the image at each position.
        part_size: positions a part.
        first, step: number of the first part, and distance to that of the next.
    """

    indices: NDArray[np.int64]
    part_size: int
    first: int = 0
    step: int = 1

    @property
    def parts(self) -> range:
        """Numbers of the parts."""
        count = -(-len(self.indices) // self.part_size)
        return range(self.first, self.first + count * self.step, self.step)

    def of_part(self, number: int) -> NDArray[np.int64]:
        """Indices of the images of a part."""
        place = self.parts.index(number)
        return self.indices[place * self.part_size : (place + 1) * self.part_size]


class PartBatches(Dataset[dict[str, Any]]):
    """Batches of images by number, those of one part after those of another.

    A batch is that of :func:`collate`, with the number of its part, and ``ends_part``.

    Args:
        images: images by index.
        order: the parts.
        parts: numbers of those that are wanted, ascending.
        batch_size: images a batch; the last of a part may have fewer.
    """

    def __init__(self, images: FilesToRank, order: Order, parts: Sequence[int], batch_size: int) -> None:
        self.images, self.order, self.parts, self.batch_size = images, order, parts, batch_size
        self._each = -(-order.part_size // batch_size)

    def __len__(self) -> int:
        if not self.parts:
            return 0
        return (len(self.parts) - 1) * self._each + -(-len(self.order.of_part(self.parts[-1])) // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        part = self.parts[number // self._each]
        start = number % self._each * self.batch_size
        indices = self.order.of_part(part)
        batch = collate([self.images[int(index)] for index in indices[start : start + self.batch_size]])
        return {**batch, "part": part, "ends_part": start + self.batch_size >= len(indices)}

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(len(self.order.of_part(part)) for part in self.parts)

    def begins_part(self, number: int) -> bool:
        """True for the first batch of a part."""
        return number % self._each == 0


class UntilSpent(Sampler[int]):
    """Batches in turn, up to the first part that would begin after the time is spent.

    Args:
        batches: the batches.
        seconds: the time, from the first batch on; ``None`` is without limit.
    """

    def __init__(self, batches: PartBatches, seconds: float | None) -> None:
        self.batches, self.seconds = batches, seconds

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        start = time.monotonic()
        for number in range(len(self.batches)):
            spent = self.seconds is not None and time.monotonic() - start >= self.seconds
            if spent and self.batches.begins_part(number):
                return
            yield number


def part_loader(
    batches: PartBatches, settings: DataSettings, *, seconds: float | None = None, processes: int = 1, pin: bool = False
) -> DataLoader[dict[str, Any]]:
    """Loader of whole batches, which no sampler of Lightning's may split or pad.

    Args:
        batches: the batches.
        settings: how images are read.
        seconds: see :class:`UntilSpent`.
        processes: number of processes on this machine.
        pin: copy to memory from which an accelerator reads faster.
    """
    workers = settings.num_workers
    if workers is None:
        workers = max(1, min(MOST_WORKERS, _cores() // processes))
    return DataLoader(
        batches,
        batch_size=None,
        sampler=UntilSpent(batches, seconds),
        num_workers=min(workers, len(batches)),
        pin_memory=pin,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
