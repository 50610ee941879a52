"""SIGReg (arXiv 2511.08544): push every 1-d projection of the embeddings towards N(0, 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_monitor.gaussianity import characteristic_function, epps_pulley, random_directions
from jepa_train.global_batch import at_least_float32, joined_count, sum_over_processes
from jepa_train.objectives.term import Anticollapse


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """Mean Epps-Pulley statistic over directions, of the batch joined over all processes.

    Args:
        z: (B, K) embeddings of this process, or (B, V, K) of V views, whose statistics are averaged.
        directions: (K, S) unit vectors, the same on every process.

    Returns:
        scalar; 1.05 for Gaussian embeddings, 0.402 * global batch when they collapse to the origin.

    Raises:
        ConfigurationError: with fewer than two samples over all processes.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        count = joined_count(z, "SIGReg")
        projections = (z @ directions.to(z)).flatten(1)
        sums = sum_over_processes(characteristic_function(projections))
        return epps_pulley(sums, count).mean()


class SIGReg(Anticollapse):
    """:func:`sigreg` of all views, averaged, with one sum over processes.

    Every step has directions of its own, equal on every process because the step seeds them.

    Args:
        num_slices: S, directions per step.
    """

    def __init__(self, num_slices: int = 256) -> None:
        super().__init__()
        self.num_slices = num_slices

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K), and the step's seed -> scalar loss."""
        return self.over_views([first, second], seed)

    def over_views(self, views: Sequence[Tensor], seed: int) -> Tensor:
        """V views (B, K), and the step's seed -> scalar mean over all views."""
        generator = torch.Generator().manual_seed(seed)
        directions = random_directions(views[0].shape[1], self.num_slices, generator=generator)
        return sigreg(torch.stack(list(views), dim=1), directions)
