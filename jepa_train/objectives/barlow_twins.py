"""Barlow Twins (arXiv 2103.03230): the cross-correlation of two views is pulled towards the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_train.global_batch import at_least_float32, centred, joined_count, joined_product, sum_over_processes
from jepa_train.objectives.term import Anticollapse, check_paired

NAME = "Barlow Twins"


def barlow(first: Tensor, second: Tensor, *, redundancy_weight: float = 5e-3, eps: float = 1e-5) -> Tensor:
    """sum_i (1 - C_ii)^2 + redundancy_weight * sum_{i != j} C_ij^2, C the cross-correlation over the joined batch.

    Args:
        first, second: (B, K) two views of the samples of this process.
        redundancy_weight: lambda of the paper's equation 1; its 5e-3.
        eps: added to each variance, as by the batch norm of the paper's implementation; keeps the gradient finite at
            zero variance.

    Returns:
        scalar, 0 for equal views of uncorrelated coordinates, K at a collapse. A sum over coordinates, so it grows
        with K.

    Raises:
        ConfigurationError: with fewer than two samples over all processes, or views of different shapes.
    """
    check_paired(first, second, NAME)
    with torch.autocast(first.device.type, enabled=False):
        first, second = at_least_float32(first), at_least_float32(second)
        count = joined_count(first, NAME)
        first, second = _standardised(first, count, eps), _standardised(second, count, eps)
        correlation = joined_product(first, second) / count
        diagonal = correlation.diagonal()
        off_diagonal = correlation - torch.diag(diagonal)
        return (1.0 - diagonal).square().sum() + redundancy_weight * off_diagonal.square().sum()


class Barlow(Anticollapse):
    """:func:`barlow` with its weight as an attribute."""

    paired = True

    def __init__(self, redundancy_weight: float = 5e-3) -> None:
        super().__init__()
        self.redundancy_weight = redundancy_weight

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K) -> scalar loss; nothing is drawn from the seed."""
        return barlow(first, second, redundancy_weight=self.redundancy_weight)


def _standardised(z: Tensor, count: Tensor, eps: float) -> Tensor:
    z = centred(z, count)
    variance = sum_over_processes(z.square().sum(0)) / count
    return z * (variance + eps).rsqrt()
