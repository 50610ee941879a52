"""Statistics of the batch joined over all processes, which several terms share."""

from __future__ import annotations

from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import global_count, sum_over_processes


def joined_count(z: Tensor, term: str, *, at_least: int = 2, because: str = "") -> Tensor:
    """Samples over all processes.

    Args:
        z: (B, ...) samples of this process.
        term: who asks, for the message.
        at_least: samples that the term needs.
        because: the reason for that number, for the message.

    Returns:
        scalar, as ``z``.

    Raises:
        ConfigurationError: on every process, with fewer samples.
    """
    count = global_count(len(z), like=z)
    # where this process alone has enough nobody looks at the count, for which an accelerator would have to wait
    if len(z) < at_least and count < at_least:
        raise ConfigurationError(
            f"{term} needs at least {at_least} samples per training batch{because}, got {int(count)} over all "
            "processes: raise the batch size."
        )
    return count


def check_paired(first: Tensor, second: Tensor, term: str) -> None:
    """Two views of the same samples have the same shape.

    Raises:
        ConfigurationError: where they have not.
    """
    if first.shape != second.shape:
        raise ConfigurationError(
            f"{term} compares two views row by row: give both the same shape, not {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )


def centred(z: Tensor, count: Tensor) -> Tensor:
    """(B, K) samples of this process minus the mean of all ``count`` samples."""
    return z - sum_over_processes(z.sum(0)) / count


def joined_product(first: Tensor, second: Tensor) -> Tensor:
    """(B, K) and (B, K) -> (K, K): sum over all samples of the outer products of their rows."""
    return sum_over_processes(first.T @ second)
