"""Squared norms of embeddings against the distribution that those of a standard Gaussian have."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincinv
from torch import Tensor

from .figure import (
    BELOW,
    BLUE,
    ENTRY,
    GREY,
    HEIGHT,
    ORANGE,
    Entry,
    canvas,
    legend_stacked,
    nothing,
    panel,
    picture,
    render,
)
from .scales import Floats, log_axis, to_numpy


@picture
def norm_qq_picture(z: Tensor, z_white: Tensor | None) -> Tensor:
    """Quantiles of the squared norm against those of N(0, I), on logarithmic axes: another scale is a parallel line.

    Left out are norms of 0 and rows with a value that is not finite; the legend counts them.

    Args:
        z: (N, K) embeddings.
        z_white: (N, L) whitened embeddings, unit variance in each of L directions.

    Returns:
        (4, H, W), uint8.
    """
    title = "squared norm of embeddings z"
    clouds = [("z", z, BLUE, "o")]
    if z_white is not None:
        clouds.append(("whitened", z_white, ORANGE, "s"))
    below = 85 + ENTRY * (len(clouds) + 1)
    height = HEIGHT - BELOW + below
    figure = canvas(height=height)
    axes = panel(
        figure,
        bottom=below,
        title=title,
        x="expected of N(0, I): chi-square quantile",
        y="squared norm",
    )
    entries = []
    expected, observed = [np.zeros(0)], [np.zeros(0)]
    for name, cloud, colour, marker in clouds:
        theory, squared = norm_quantiles(cloud)
        positive = squared > 0
        left_out = len(cloud) - int(positive.sum())
        label = f"{name}, {cloud.shape[1]} dimensions" + (f" ({left_out} left out)" if left_out else "")
        axes.plot(theory[positive], squared[positive], marker, color=colour, markersize=3, alpha=0.7, mew=0)
        entries.append(Entry(label, colour, width=4))
        expected.append(theory[positive])
        observed.append(squared[positive])
    x, y = np.concatenate(expected), np.concatenate(observed)
    if not len(x):
        return nothing(title)
    log_axis(axes, "x", x)
    ends = axes.get_xlim()
    log_axis(axes, "y", np.concatenate([y, ends]))
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    entries.append(Entry("N(0, I)", GREY, "--"))
    legend_stacked(figure, entries, left=125, top=height - below + 80)
    return render(figure)


def norm_quantiles(z: Tensor) -> tuple[Floats, Floats]:
    """Sorted squared norms and the chi-square quantiles, K degrees of freedom, at (i - 1/2) / n.

    Args:
        z: (N, K); rows with a value that is not finite are left out.

    Returns:
        Expected and observed, (n,) each, ascending, in squared units of z.
    """
    rows = to_numpy(z)
    with np.errstate(over="ignore"):
        squared = np.sort((rows**2).sum(1))
    observed: Floats = squared[np.isfinite(squared)]
    levels = (np.arange(len(observed)) + 0.5) / max(len(observed), 1)
    expected: Floats = 2.0 * gammaincinv(rows.shape[1] / 2.0, levels)  # scipy.stats.chi2.ppf, but quicker to import
    return expected, observed
