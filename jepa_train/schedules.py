"""Schedules as pure functions of the optimizer step: nothing to save, nothing to restore.

Which value a step uses is the published one (I-JEPA, arXiv 2301.08243): optimizer step t of T, counted from 1, has the
learning rate and the weight decay at t, so that the last step has their ends and the first is past their starts; the
average of the target that follows it has the momentum at t - 1, from its start on.
"""

from __future__ import annotations

import math


def linear(step: int, *, start: float, end: float, total_steps: int) -> float:
    """Straight line from ``start`` at step 0 to ``end`` at ``total_steps``, constant after it."""
    return start + (end - start) * min(step / max(total_steps, 1), 1.0)


def cosine(step: int, *, start: float, end: float, total_steps: int) -> float:
    """Half a cosine from ``start`` at step 0 to ``end`` at ``total_steps``, constant after it."""
    progress = min(step / max(total_steps, 1), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_cosine(step: int, *, start: float, peak: float, end: float, warmup_steps: int, total_steps: int) -> float:
    """Straight line from ``start`` to ``peak`` in ``warmup_steps``, then half a cosine down to ``end``."""
    if step < warmup_steps:
        return linear(step, start=start, end=peak, total_steps=warmup_steps)
    return cosine(step - warmup_steps, start=peak, end=end, total_steps=total_steps - warmup_steps)
