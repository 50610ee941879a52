"""Seconds of training and of measurements."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from .budget import Clock


class Stopwatch:
    """Runs from the start of a fit; what is measured meanwhile is told apart.

    Args:
        step: optimizer steps that were done before, in a run that resumes.

    Attributes:
        spent: seconds measured.
    """

    def __init__(self, step: int = 0) -> None:
        self.spent = 0.0
        self._started = time.monotonic()
        self._first_step = step
        self._last_progress = 0.0

    @contextmanager
    def measuring(self) -> Generator[None, None, None]:
        """What is done inside is not training."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.spent += time.monotonic() - begun

    def clock(self, step: int, total_steps: float | None) -> Clock:
        """Where the run stands; asked inside :meth:`measuring`, the seconds since its beginning count as training."""
        done = step - self._first_step
        if done <= 0:
            return Clock(0.0, self.spent, None)
        trained = time.monotonic() - self._started - self.spent
        if not total_steps or total_steps <= self._first_step:
            return Clock(trained, self.spent, None)
        progress = min(1.0, done / (total_steps - self._first_step))
        return Clock(trained, self.spent, progress, progress - self._last_progress)

    def lap(self, clock: Clock) -> None:
        """A measurement was made there."""
        self._last_progress = clock.progress or 0.0
