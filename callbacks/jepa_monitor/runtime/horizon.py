"""The position of a run and its length, as far as its Trainer knows them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import lightning.pytorch as pl

from ..probe.samples import first_loader


@dataclass(frozen=True)
class Horizon:
    """The position of a run.

    Attributes:
        step: optimizer steps that are done.
        steps_left: optimizer steps until ``max_epochs`` or ``max_steps``; ``None`` where that is unknown.
        seconds_left: seconds until ``max_time``, measurements included; ``None`` without one.
        samples_a_step: samples that a process trains on in an optimizer step; ``None`` where that is unknown.
    """

    step: int
    steps_left: float | None = None
    seconds_left: float | None = None
    samples_a_step: int | None = None


def horizon_of(trainer: pl.Trainer) -> Horizon:
    """Ask the Trainer in ``fit``."""
    total, step = _total_steps(trainer), trainer.global_step
    return Horizon(
        step=step,
        steps_left=None if total is None else max(0.0, total - step),
        seconds_left=_seconds_left(trainer),
        samples_a_step=_samples_a_step(trainer),
    )


def _total_steps(trainer: pl.Trainer) -> float | None:
    try:
        total = float(trainer.estimated_stepping_batches)
    except Exception:  # with a schedule of accumulation; the class depends on which package the Trainer is from
        return None
    return total if math.isfinite(total) and total > 0 else None


def _seconds_left(trainer: pl.Trainer) -> float | None:
    """Seconds of Lightning's Timer, which is what ``max_time`` becomes."""
    callbacks = getattr(trainer, "callbacks", [])
    timers = [callback for callback in callbacks if any(base.__name__ == "Timer" for base in type(callback).__mro__)]
    known = [left for timer in timers if (left := timer.time_remaining()) is not None]
    return max(0.0, min(known)) if known else None


def _samples_a_step(trainer: pl.Trainer) -> int | None:
    loader = first_loader(trainer.train_dataloader)
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size * trainer.accumulate_grad_batches if isinstance(size, int) else None
