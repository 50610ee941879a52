"""Uniformity on the unit sphere (arXiv 2005.10242): samples repel each other by a Gaussian potential."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_train.global_batch import at_least_float32, gather_over_processes, joined_count, sum_over_processes
from jepa_train.objectives.term import Anticollapse


def uniformity(z: Tensor, *, t: float = 2.0) -> Tensor:
    """log of the mean of exp(-t ||u - v||^2) over pairs of different samples of the joined batch, u = z / |z|.

    Every process takes the pairs of its own samples with all others: memory is that of a (B, N) matrix, N the number of
    samples over all processes.

    Args:
        z: (B, K) embeddings of this process.
        t: sharpness of the potential; the paper's 2.

    Returns:
        scalar in [-4 t, 0]: 0 at a collapse, about -2 t (1 - t / K) for uniform samples in high dimension K.

    Raises:
        ConfigurationError: with fewer than two samples over all processes.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        count = joined_count(z, "Uniformity")
        directions = F.normalize(z, dim=1, eps=1e-6)
        others, first_own = gather_over_processes(directions)
        exponent = 2.0 * t * (directions @ others.T - 1.0)  # -t ||u - v||^2 of unit vectors
        itself = torch.ones_like(exponent, dtype=torch.bool).triu(first_own).tril(first_own)
        pairs = sum_over_processes(exponent.exp().masked_fill(itself, 0.0).sum())
        return (pairs / (count * (count - 1))).log()


class Uniformity(Anticollapse):
    """:func:`uniformity` of both views, averaged, with its sharpness as an attribute."""

    def __init__(self, t: float = 2.0) -> None:
        super().__init__()
        self.t = t

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K) -> scalar loss; nothing is drawn from the seed."""
        return 0.5 * (uniformity(first, t=self.t) + uniformity(second, t=self.t))
