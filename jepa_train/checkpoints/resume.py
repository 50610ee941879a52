"""Progress of a run, as Lightning's checkpoints count it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jepa_train.errors import ConfigurationError


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
        # in a run that was resumed before, these could be one behind
        epochs[kind]["ready"] = epochs[kind]["started"] = epochs[kind]["completed"] + 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def count_epoch_begun(fit_loop: Any) -> None:
    """Count the epoch that a run begins with after a resume from an epoch's last batch, which Lightning does not.

    Without it the run's own checkpoints are one epoch short, and a second resume trains an epoch too many.

    Args:
        fit_loop: loop of Lightning's Trainer, when its training starts.
    """
    epochs = fit_loop.epoch_progress
    if fit_loop.restarted_mid_epoch and epochs.current.ready == epochs.current.completed:
        for counts in (epochs.total, epochs.current):
            counts.ready = counts.started = counts.completed + 1


def epochs_trained(loops: Mapping[str, Any]) -> int:
    """Count the epochs whose last batch a checkpoint has seen, written within that batch or at the epoch's end."""
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    completed: int = epochs["completed"]
    if epochs["processed"] > completed or batches["is_last_batch"]:
        return completed + 1
    return completed


def limit_reached(checkpoint: Mapping[str, Any], limits: Mapping[str, Any], path: str) -> str | None:
    """Write a sentence about the limit of the Trainer that a checkpoint has reached; ``None`` where training can go on.

    Args:
        checkpoint: content of a file, with Lightning's ``loops``.
        limits: ``max_epochs`` and ``max_steps``, of which ``None`` and negative numbers are none.
        path: path of the checkpoint.

    Raises:
        ConfigurationError: if it is past the limit.
    """
    done = {"max_epochs": epochs_trained(checkpoint["loops"]["fit_loop"]), "max_steps": checkpoint["global_step"]}
    reached = {name: limit for name in done if (limit := limits[name]) is not None and 0 <= limit <= done[name]}
    for name, limit in reached.items():
        if done[name] > limit:
            raise ConfigurationError(
                f"the checkpoint {path} has trained {_counted(name, done[name])} already, more than {name} {limit}: "
                f"{_larger(reached)}."
            )
    if not reached:
        return None
    parts = " and ".join(f"{done[name]} of {_counted(name, limit)}" for name, limit in reached.items())
    return f"The run of {path} is finished, with {parts}: to make it longer, {_larger(reached)}."


def _counted(limit: str, number: int) -> str:
    return f"{number} {limit.removeprefix('max_')}"


def _larger(limits: Iterable[str]) -> str:
    """Say which options to raise: where two limits are reached, both."""
    options = " and ".join(f"--trainer.{limit}" for limit in limits)
    return f"give {'larger' if ' and ' in options else 'a larger'} {options}"
