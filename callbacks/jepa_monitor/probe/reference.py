"""Reference samples beyond those that baselines are fitted to: thousands, for a density of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ..ranking import GaussianBaseline, fingerprints
from ..runtime.concise import Concise
from ..runtime.distributed import fail_together, process_count
from .samples import Samples, dataset_of, is_stream
from .shards import Shard, gather_by_index

LARGEST_REFERENCE = 8192  # samples
KEPT_BYTES = 2**28  # of inputs, over all processes


@dataclass(repr=False)
class FurtherReference(Concise):
    """Further samples of the reference, as many as the plan of a run has time for, read once.

    Attributes:
        data: the reference, unread.
        start: samples at its beginning that are others: the probe's, and those that baselines are fitted to.
        before: number of reference samples that were read already.
        like: (1, ...) one of them.
        in_probe: fingerprints of the probe's inputs.
        seconds_a_sample: time that reading one of them took.
        shard: this process's shard, once it is read.
        is_new: (M,) true for samples of all processes' shards that are not in the probe.
    """

    data: Any
    start: int
    before: int
    like: Tensor
    in_probe: frozenset[int]
    seconds_a_sample: float
    shard: Shard | None = None
    is_new: Tensor | None = None

    @property
    def most(self) -> int:
        """Number of reference samples in all that there are, and that memory is given to."""
        fitting = KEPT_BYTES // (self.like.numel() * self.like.element_size())
        there = LARGEST_REFERENCE if is_stream(self.data) else self.before + len(dataset_of(self.data)) - self.start
        return max(self.before, min(LARGEST_REFERENCE, fitting, there))

    def read(self, samples: Samples, total: int, *, global_rank: int, device: torch.device) -> None:
        """Read on until there are ``total`` reference samples, at most, each process its shard. Every process calls it.

        Args:
            samples: the data from ``start`` on.
            total: number of reference samples in all.
            global_rank: number of the process.
            device: place of tensors that the process group's backend takes.
        """
        with fail_together(device):
            count = min(total, self.most) - self.before
            shard = Shard.read(samples, count, global_rank=global_rank, world_size=process_count())
            if shard.inputs.shape[1:] != self.like.shape[1:] or shard.inputs.dtype != self.like.dtype:
                raise ValueError(f"samples are no longer of shape {tuple(self.like.shape[1:])}.")
            new = torch.tensor([one not in self.in_probe for one in fingerprints(shard.inputs).tolist()])
        self.is_new = gather_by_index(shard.indices.to(device), new.to(device))
        self.shard = shard


def require_alike(reference: Shard, probe: Shard) -> None:
    """Raise where an encoder that takes the one cannot be expected to take the other."""
    first, second = (f"{shard.inputs.dtype} of shape {tuple(shard.inputs[0].shape)}" for shard in (reference, probe))
    if first != second:
        raise ValueError(f"samples are {first}, those of the probe {second}; pass reference=.")


def gaussian_baseline(inputs: Tensor) -> GaussianBaseline | None:
    """Fit one Gaussian to inputs (M, ...); ``None`` with a warning where there is none."""
    try:
        return GaussianBaseline.fit(inputs if inputs.is_floating_point() else inputs.float())
    except ValueError as error:
        rank_zero_warn(f"JEPAScoreMonitor does not compute density/spearman_gaussian: {error}")
        return None
