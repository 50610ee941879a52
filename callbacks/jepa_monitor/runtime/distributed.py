"""Processes agree on failures before they meet in a collective: one that raised would leave the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class MeasurementError(RuntimeError):
    """A measurement failed on some process; the message says on which and why."""


def together(function: Callable[[], T], *, device: torch.device) -> T:
    """Run what each process does by itself; if it fails on one of them, all raise.

    Every process must call it. Between two calls only collectives may happen.

    Args:
        function: must not contain a collective.
        device: where the process group's backend takes tensors from.

    Raises:
        MeasurementError: on every process, if there are several and the function raised on one of them.
    """
    if not in_group():
        return function()
    result: list[T] = []
    failure: Exception | None = None
    try:
        result.append(function())
    except Exception as error:  # whatever it was, the others must hear of it
        failure = error
    failed = torch.tensor(int(failure is not None), device=device)
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if not failed:
        return result[0]
    reasons: list[str | None] = [None] * dist.get_world_size()
    reason = None if failure is None else f"{type(failure).__name__}: {failure}"
    dist.all_gather_object(reasons, reason)
    told = "; ".join(f"process {rank}: {reason}" for rank, reason in enumerate(reasons) if reason)
    raise MeasurementError(told) from failure


def from_first(value: T) -> T:
    """The first process's value, on every process."""
    if not in_group():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def in_group() -> bool:
    """Are there other processes? Asked at each call, because a callback is made before its process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_count() -> int:
    """1 without a process group."""
    return dist.get_world_size() if in_group() else 1


def is_first() -> bool:
    """The process whose value :func:`from_first` hands round; the only one without a process group."""
    return not in_group() or dist.get_rank() == 0
