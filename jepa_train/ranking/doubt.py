"""One number to sort by: how unusual an image is to the encoder, or in its complexity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

FEWEST_OF_A_CLASS = 20  # whose own spread of sizes is known well enough


def doubt(
    log_density: NDArray[np.float64], compressed_size: NDArray[np.float64], classes: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Join a low log density and an unusual compressed size: sqrt(min(0, d)^2 + s^2), both in robust deviations.

    d is the log density less its median over all images, s the log compressed size less its median within the class,
    each over the median absolute deviation, scaled so that a Gaussian has 1. An encoder takes blank and blurred images
    for common ones; their size gives many of them away.

    Args:
        log_density: (N,) nats.
        compressed_size: (N,) bytes.
        classes: (N,) texts or ``None``; a class of fewer than 20 sizes is compared with all.

    Returns:
        (N,) 0 or more; NaN where a score is not finite, or no other image has one.
    """
    sizes = np.log(compressed_size)
    own = deviations(sizes)
    for name in set(classes.tolist()):
        members = np.flatnonzero((classes == name) & np.isfinite(sizes))
        if len(members) >= FEWEST_OF_A_CLASS:
            own[members] = deviations(sizes[members])
    return np.asarray(np.hypot(np.minimum(deviations(log_density), 0.0), own))


def deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (N,) from the median in median absolute deviations, 1.4826 of which are one of a Gaussian.

    All 0 where more than half of the values are equal: then nothing says how much they vary. NaN for a value that is
    not finite, or the only one.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return np.full(len(values), np.nan)
    spread = float(median_abs_deviation(finite, scale="normal"))
    if not spread:
        return np.where(np.isfinite(values), 0.0, np.nan)
    return np.asarray((values - np.median(finite)) / spread)
