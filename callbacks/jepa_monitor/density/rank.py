"""The number of directions that carry density: one integer for a whole model."""

from __future__ import annotations

import math

from torch import Tensor

SMALLEST_GAP = math.log(4.0)


def auto_rank(mean_log_spectrum: Tensor, *, smallest_gap: float = SMALLEST_GAP) -> int:
    """Cut the spectrum at its widest gap, or not at all.

    Singular values behind a gap are the encoder's leftover sensitivity along its level sets: noise, not density.

    Args:
        mean_log_spectrum: (K,) mean over samples of log sigma_k, in nats, largest first.
        smallest_gap: in nats; a spectrum without a gap that wide is kept whole. The default is a factor of 4.

    Returns:
        r, from 1 to K.
    """
    if len(mean_log_spectrum) < 2:
        return len(mean_log_spectrum)
    gaps = mean_log_spectrum[:-1] - mean_log_spectrum[1:]
    widest = int(gaps.argmax())
    return widest + 1 if float(gaps[widest]) >= smallest_gap else len(mean_log_spectrum)
