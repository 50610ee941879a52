"""Statistics of the batch joined over all processes: collectives that are decided at call time and differentiable.

The convention: every process computes the same global loss L, so the gradient that reaches a local sample x is
world_size * dL/dx, and the average that DDP takes over processes turns it into exactly dL/dtheta.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from jepa_monitor.runtime.distributed import in_group
from jepa_train.errors import ConfigurationError


def at_least_float32(tensor: Tensor) -> Tensor:
    """Turn half precision, in which no statistic is computed, into float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, whose backward is the same sum."""

    # not torch.distributed.nn.functional.all_reduce, which gives the same bits but is deprecated in torch 2.14

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return _all_reduced(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        return _all_reduced(grads[0])


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Differentiable sum over processes; the tensor itself where there is one process."""
    return cast("Tensor", _SumOverProcesses.apply(tensor)) if in_group() else tensor


def gather_over_processes(samples: Tensor) -> tuple[Tensor, int]:
    """Differentiable joined batch of all processes, which may hold different numbers of samples.

    Args:
        samples: (B, ...), with the same trailing shape on every process.

    Returns:
        (N, ...) samples of all processes in their order, and where this process's own begin in it.
    """
    if not in_group():
        return samples, 0
    global_rank = dist.get_rank()
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=samples.device)
    counts[global_rank] = len(samples)
    sizes = _all_reduced(counts).tolist()
    before, after = sum(sizes[:global_rank]), sum(sizes[global_rank + 1 :])
    # zeros where the others' samples belong: the sum joins them, and its backward is the one that L needs
    padding = [0, 0] * (samples.ndim - 1) + [before, after]
    return sum_over_processes(F.pad(samples, padding)), before


def mean_over_processes(values: Tensor) -> Tensor:
    """Differentiable mean of all values of all processes, each value with the same weight.

    Args:
        values: any shape, not necessarily the same on every process.

    Returns:
        scalar, NaN where there is no value at all.
    """
    sum_and_count = torch.stack([values.sum(), values.new_full((), values.numel())])
    total, count = sum_over_processes(sum_and_count)
    mean: Tensor = total / count
    return mean


def global_count(local_count: int, *, like: Tensor) -> Tensor:
    """Number of samples over all processes, a scalar in the dtype and on the device of ``like``."""
    return sum_over_processes(like.new_full((), local_count))


def joined_count(z: Tensor, term: str, *, at_least: int = 2, because: str = "") -> Tensor:
    """Count the samples over all processes, and see that there are enough.

    Args:
        z: (B, ...) samples of this process.
        term: name of the objective, for the message.
        at_least: samples that the objective needs.
        because: reason for that number, for the message.

    Returns:
        scalar, as ``z``.

    Raises:
        ConfigurationError: on every process, with fewer samples.
    """
    count = global_count(len(z), like=z)
    # where this process alone has enough nobody reads the count, for which an accelerator would have to wait
    if len(z) < at_least and count < at_least:
        raise ConfigurationError(
            f"{term} needs at least {at_least} samples per training batch{because}, got {int(count)} over all "
            "processes: raise the batch size."
        )
    return count


def centred(z: Tensor, count: Tensor) -> Tensor:
    """(B, K) samples of this process minus the mean of all ``count`` samples."""
    return z - sum_over_processes(z.sum(0)) / count


def joined_product(first: Tensor, second: Tensor) -> Tensor:
    """(B, K) and (B, K) -> (K, K): sum over all samples of the outer products of their rows."""
    return sum_over_processes(first.T @ second)


def _all_reduced(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
