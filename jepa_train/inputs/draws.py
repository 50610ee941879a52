"""Random numbers of training as a pure function of what they are for and when: nothing to save, nothing to restore."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What is drawn. Equal numbers for two purposes would tie, say, crops to masks."""

    MASKS = 0
    VIEWS = 1
    PIXEL_NOISE = 2
    SLICES = 3
    DROPPING = 4


def seed_of(purpose: Purpose, *, seed: int, step: int, rank: int = 0) -> int:
    """A seed for a generator.

    Args:
        purpose: what is drawn.
        seed: of the run, 0 or more.
        step: training batches before this one, over all epochs.
        rank: of the process; leave it at 0 for what all processes must draw alike.

    Returns:
        a number in [0, 2^63), different for different arguments but for chance (64 mixed bits).
    """
    return int(np.random.SeedSequence([seed, step, rank, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))
