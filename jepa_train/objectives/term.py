"""The base class of anti-collapse terms: a module called with two views of the same samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError


class Anticollapse(nn.Module, ABC):
    """A term that keeps embeddings, or tokens, from collapsing, of the batch joined over all processes.

    It has no parameters. Terms that look at one view alone are averaged over both, but for VICReg's covariance.

    Attributes:
        paired: compares a row of one view with the same row of the other.
    """

    paired = False

    @abstractmethod
    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """Compute the loss of one step.

        Args:
            first, second: (B, K) two views of the same samples, row by row.
            seed: seed of the step, the same on every process, for what the term draws at random.

        Returns:
            scalar, the same on every process.

        Raises:
            ConfigurationError: with too few samples over all processes.
        """

    def over_views(self, views: Sequence[Tensor], seed: int) -> Tensor:
        """Mean of the term over disjoint pairs of views, in their order.

        Of an odd number the last view makes a pair with the first, which so counts twice: no view is left to collapse.

        Args:
            views: two views (B, K) or more of the same samples.
            seed: seed of the step.
        """
        in_pairs = [*views, views[0]] if len(views) % 2 else views
        pairs = zip(in_pairs[::2], in_pairs[1::2], strict=True)
        return torch.stack([self(first, second, seed) for first, second in pairs]).mean()


def check_paired(first: Tensor, second: Tensor, term: str) -> None:
    """See that two views have the same shape, as those of the same samples have.

    Raises:
        ConfigurationError: where they have not.
    """
    if first.shape != second.shape:
        raise ConfigurationError(
            f"{term} compares two views row by row: give both the same shape, not {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
