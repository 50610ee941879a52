"""What every anti-collapse term is: a module called with two views of the same samples."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Anticollapse(nn.Module, ABC):
    """A term that keeps embeddings, or tokens, from collapsing, of the batch joined over all processes.

    It has no parameters. Terms that look at one view alone are averaged over both, but for VICReg's covariance.

    Attributes:
        paired: compares a row of one view with the same row of the other.
    """

    paired = False

    @abstractmethod
    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """The loss of one step.

        Args:
            first, second: (B, K) two views of the same samples, row by row.
            seed: the step's, the same on every process; of what the term draws at random.

        Returns:
            scalar, the same on every process.

        Raises:
            ConfigurationError: with too few samples over all processes.
        """
