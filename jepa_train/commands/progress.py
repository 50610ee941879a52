"""The progress of a run whose output is no terminal: one line, where a terminal has a bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from jepa_monitor.runtime.budget import Horizon, horizon_of

SECONDS_UNTIL = 60.0  # when the pace is known
WORTH_SAYING = 10.0  # seconds


class ProgressLine(pl.Callback):
    """Logs one line, a minute after the start: where the run is, and about how long it still takes.

    A run that is nearly done by then has none.

    Args:
        clock: seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = 0.0
        self._first_step = 0
        self._is_due = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count, from the step that a resumed run goes on at."""
        self._begun, self._first_step, self._is_due = self._clock(), trainer.global_step, True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the line when it is due, for which each process looks at its own clock: nothing here waits for others."""
        seconds = self._clock() - self._begun
        has_begun = trainer.global_step > self._first_step  # where gradients accumulate, a step takes several batches
        if self._is_due and has_begun and seconds >= SECONDS_UNTIL and (horizon := horizon_of(trainer)):
            self._is_due = False
            if text := line(horizon, first_step=self._first_step, seconds=seconds):
                rank_zero_info(text)


def line(horizon: Horizon, *, first_step: int, seconds: float) -> str:
    """Write where a run is: ``Step 390 (25 % of the run) after 0:01:04; about 0:03:12 to go.``

    Args:
        horizon: its step, and what is left.
        first_step: optimizer step at which it began.
        seconds: seconds since.

    Returns:
        the line, or nothing where little is left.
    """
    at = f"Step {horizon.step}"
    share = share_done(horizon, first_step=first_step, seconds=seconds)
    if not share:
        return f"{at} after {_written(seconds)}."
    to_go = seconds * (1.0 - share) / share
    if to_go < WORTH_SAYING:
        return ""
    return f"{at} ({100.0 * share:.0f} % of the run) after {_written(seconds)}; about {_written(to_go)} to go."


def share_done(horizon: Horizon, *, first_step: int, seconds: float) -> float | None:
    """Share of the run that is done, 0 to 1, by its steps or its time, whichever ends first; ``None`` without an end.

    Args:
        horizon: what is left.
        first_step: optimizer step at which it began.
        seconds: seconds since.
    """
    done = horizon.step - first_step
    shares = [
        passed / (passed + left)
        for passed, left in ((float(done), horizon.steps_left), (seconds, horizon.seconds_left))
        if left is not None and passed + left > 0
    ]
    return max(shares, default=None)


def _written(seconds: float) -> str:
    days = seconds / timedelta(days=1).total_seconds()
    return str(timedelta(seconds=round(seconds))) if days < 2.0 else f"{days:.0f} days"
