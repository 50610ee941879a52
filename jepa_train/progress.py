"""How far a run got, as Lightning's checkpoints count it."""

from __future__ import annotations

from typing import Any


def between_batches(loops: dict[str, Any]) -> None:
    """Turn Lightning's counters of a checkpoint that was written at an epoch's end into those of its last batch.

    From the former, a run with other limits (``max_steps`` after ``max_epochs``, or one that stopped in mid-epoch) goes
    on with a batch too many, or in an epoch that was never begun; the latter it reads right in all cases.

    Args:
        loops: ``checkpoint["loops"]["fit_loop"]`` of Lightning 2.6, changed in place.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] != epochs["current"]["completed"] + 1:
        return
    for kind in ("total", "current"):
        epochs[kind]["processed"] -= 1
        batches[kind]["completed"] -= 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
