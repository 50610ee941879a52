"""Leaving a group of processes."""

from __future__ import annotations

import time

import torch.distributed as dist

SECONDS_TO_LET_GO = 0.2


def disconnect() -> None:
    """Destroy the process groups, if there are any, so that the interpreter can end.

    A group's threads end with it. But a sharded model, and torch's caches of its operations, hold their groups until
    the interpreter is gone, and gloo's threads need it once more to let go of the last collective's tensors: one that
    still waits for its turn aborts the process ("terminate called without an active exception").
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    dist.destroy_process_group()
    time.sleep(SECONDS_TO_LET_GO)  # gives the interpreter to those threads; nothing tells when they are done
