"""Processes that measure together: all of them raise or none, and all of them get the same values.

A process that raised by itself would leave the others waiting in their next collective.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class MeasurementError(RuntimeError):
    """A measurement failed on some process; the message says on which and why."""


class fail_together(AbstractContextManager[None]):
    """Run a block that each process does by itself; if it fails on one of them, all raise at its end.

    Every process enters the block, and no collective happens inside. What the block makes is kept in local names until
    it has ended: it may succeed here and fail elsewhere. Without other processes its own exception passes unchanged.

    Args:
        device: place of tensors that the process group's backend takes.

    Raises:
        MeasurementError: on every process, if there are several and the block raised on one of them; where it did, its
            exception is the cause.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not in_group() or not (error is None or isinstance(error, Exception)):
            return  # an interrupt ends this process, and with it the run
        reason = None if error is None else _described(error)  # before the collectives: it may raise
        failed = torch.tensor(int(error is not None), device=self.device)
        dist.all_reduce(failed, op=dist.ReduceOp.MAX)
        if not failed:
            return
        reasons: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, reason)
        known = [f"process {global_rank}: {reason}" for global_rank, reason in enumerate(reasons) if reason]
        raise MeasurementError("; ".join(known)) from error


def _described(error: Exception) -> str:
    """Kind and text of an exception, whose own ``__str__`` may fail."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}, which cannot be printed"


def broadcast(value: T) -> T:
    """Return the first process's value, on every process."""
    if not in_group():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def in_group() -> bool:
    """Return true where there are other processes; asked at each call, as a callback is made before its group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_count() -> int:
    """Count the processes; 1 without a process group."""
    return dist.get_world_size() if in_group() else 1


def is_global_zero() -> bool:
    """Return true on the process whose value :func:`broadcast` returns; the only one without a process group."""
    return not in_group() or dist.get_rank() == 0
