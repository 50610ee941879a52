"""The two collectives that exact objectives need, decided at call time and differentiable."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, whose backward is the same sum.

    Every process then computes the same global loss L from the result. The gradient that reaches a local sample is
    world_size * dL/dx, and the average that DDP takes over processes turns it into exactly dL/dtheta.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Differentiable sum over processes; the tensor itself where there is one process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    return cast("Tensor", _SumOverProcesses.apply(tensor))


def global_count(local_count: int, *, like: Tensor) -> Tensor:
    """Number of samples over all processes, a scalar in the dtype and on the device of ``like``."""
    return sum_over_processes(torch.tensor(float(local_count), dtype=like.dtype, device=like.device))
