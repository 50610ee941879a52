"""The collectives that exact objectives need, decided at call time and differentiable.

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


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, whose backward is the same sum."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return _all_reduced(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        return _all_reduced(grads[0])


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Differentiable sum over processes; the tensor itself where there is one process."""
    return cast("Tensor", _SumOverProcesses.apply(tensor)) if _several_processes() else tensor


def gather_over_processes(samples: Tensor) -> tuple[Tensor, int]:
    """Differentiable joined batch of all processes, which may hold different numbers of samples.

    Args:
        samples: (B, ...), with the same trailing shape on every process.

    Returns:
        (N, ...) samples of all processes in the order of ranks, and where this process's own begin in it.
    """
    if not _several_processes():
        return samples, 0
    rank = dist.get_rank()
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=samples.device)
    counts[rank] = len(samples)
    sizes = _all_reduced(counts).tolist()
    before, after = sum(sizes[:rank]), sum(sizes[rank + 1 :])
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


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_reduced(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
