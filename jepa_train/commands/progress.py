"""The progress of a run whose output is no terminal: few lines, where a terminal has a bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from jepa_monitor.runtime.budget import Horizon, horizon_of

QUARTERS = 4
SECONDS_APART = 60.0


class ProgressLines(pl.Callback):
    """Logs at most four lines: a minute after the start, and after each of the first three quarters of the run.

    No line follows another within a minute, so that a short run has none.

    Args:
        clock: seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = self._last = 0.0
        self._first_step = 0
        self._quarters = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count, from the step that a resumed run goes on at."""
        self._begun = self._last = self._clock()
        self._first_step, self._quarters = trainer.global_step, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a line when one is due, for which each process looks at its own clock: nothing here waits for others."""
        now = self._clock()
        horizon = None if now - self._last < SECONDS_APART else horizon_of(trainer)
        if horizon is None:
            return
        self._last = now
        share = share_done(horizon, first_step=self._first_step, seconds=now - self._begun)
        quarters = 1 + int(QUARTERS * (share or 0.0))
        if self._quarters < quarters <= QUARTERS:
            self._quarters = quarters
            rank_zero_info(line(horizon.step, now - self._begun, share))


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


def line(step: int, seconds: float, share: float | None) -> str:
    """Write where a run is: ``Step 390 (25 % of the run) after 0:01:04; about 0:03:12 to go.``"""
    to_go = f"; about {_written(seconds * (1.0 - share) / share)} to go" if share else ""
    of_run = f" ({100.0 * share:.0f} % of the run)" if share else ""
    return f"Step {step}{of_run} after {_written(seconds)}{to_go}."


def _written(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
