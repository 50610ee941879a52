"""SIGReg (arXiv 2511.08544): push every 1-d projection of the embeddings towards N(0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_monitor.gaussianity import characteristic_function, epps_pulley, random_directions
from jepa_train.distributed import global_count, sum_over_processes
from jepa_train.errors import ConfigurationError
from jepa_train.precision import at_least_float32


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
        count = global_count(len(z), like=z)
        if count < 2:
            raise ConfigurationError("SIGReg needs at least 2 samples per training batch: raise the batch size.")
        sums = sum_over_processes(characteristic_function(z @ directions.to(z)))
        return epps_pulley(sums, count).mean()


class SIGReg(nn.Module):
    """:func:`sigreg` with fresh directions at every step, equal on every process because the step seeds them.

    Args:
        num_slices: S, directions per step.
    """

    def __init__(self, num_slices: int = 256) -> None:
        super().__init__()
        self.num_slices = num_slices

    def forward(self, z: Tensor, seed: int) -> Tensor:
        """(B, K) embeddings and the step's seed -> scalar loss."""
        generator = torch.Generator().manual_seed(seed)
        return sigreg(z, random_directions(z.shape[1], self.num_slices, generator=generator))
