"""SIGReg (arXiv 2511.08544): push every 1-d projection of the embeddings towards N(0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_monitor.gaussianity import characteristic_function, epps_pulley, random_directions
from jepa_train.global_batch import at_least_float32, joined_count, sum_over_processes
from jepa_train.objectives.term import Anticollapse


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """Mean Epps-Pulley statistic over directions, of the batch joined over all processes.

    Args:
        z: (B, K) embeddings of this process.
        directions: (K, S) unit vectors, the same on every process.

    Returns:
        scalar; 1.05 for Gaussian embeddings, 0.402 * global batch when they collapse to the origin.

    Raises:
        ConfigurationError: with fewer than two samples over all processes.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        count = joined_count(z, "SIGReg")
        sums = sum_over_processes(characteristic_function(z @ directions.to(z)))
        return epps_pulley(sums, count).mean()


class SIGReg(Anticollapse):
    """:func:`sigreg` of both views, averaged.

    Every step has directions of its own, equal on every process because the step seeds them.

    Args:
        num_slices: S, directions per step.
    """

    def __init__(self, num_slices: int = 256) -> None:
        super().__init__()
        self.num_slices = num_slices

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K), and the step's seed -> scalar loss."""
        generator = torch.Generator().manual_seed(seed)
        directions = random_directions(first.shape[1], self.num_slices, generator=generator)
        return 0.5 * (sigreg(first, directions) + sigreg(second, directions))
