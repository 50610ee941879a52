"""All Gaussianity statistics of an embedding cloud at once: one record each, a function, and a metric.

The keys of the function, the rows of the page of tags and the lines of TensorBoard's charts all follow from
:data:`STATISTICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from ..density import require_embeddings
from . import characteristic, dimension, moments
from .cloud import Cloud, as_float64

# titles of TensorBoard's charts
RATIOS = "Gaussianity ratios (1 = Gaussian)"
DEVIATIONS = "skewness and kurtosis, in deviations (0 = Gaussian)"


@dataclass(frozen=True, eq=False)
class Shared:
    """A cloud, and what several of its statistics are read from: computed once.

    Attributes:
        cloud: N >= 1 embeddings of K dimensions.
        num_slices: random directions of the sliced statistic.
        seed: seed of these directions.
    """

    cloud: Cloud
    num_slices: int
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """N and K, as null values take them."""
        return self.cloud.n, self.cloud.k

    @cached_property
    def sliced(self) -> Tensor:
        """(S,) Epps-Pulley statistics along random directions."""
        return characteristic.sliced_epps_pulley(self.cloud, num_slices=self.num_slices, seed=self.seed)

    @cached_property
    def norm(self) -> moments.NormConcentration:
        """Squared norms beside their law."""
        return moments.norm_concentration(self.cloud)

    @cached_property
    def mardia(self) -> moments.Mardia:
        """Skewness and kurtosis."""
        return moments.mardia(self.cloud)


@dataclass(frozen=True)
class Statistic:
    """One statistic: its computation, and what its values mean.

    Attributes:
        name: key of :func:`gaussianity_statistics`; its tag is ``gaussianity/<name>``.
        compute: value of a cloud; NaN where it has no meaning.
        meaning: text of its row on the page of tags.
        gaussian: value for a Gaussian embedding.
        collapsed: value after a collapse.
        better: ``higher``, ``lower``, or near a value.
        chart: title of the chart that has its line, if any.
    """

    name: str
    compute: Callable[[Shared], float]
    meaning: str
    gaussian: str
    collapsed: str
    better: str
    chart: str | None = None


STATISTICS = (
    Statistic(
        "sliced_ep_ratio",
        lambda z: float(z.sliced.mean()) / characteristic.sliced_epps_pulley_null(*z.size),
        meaning="mean Epps-Pulley statistic over random directions",
        gaussian="1",
        collapsed="0.38 N",
        better="lower",
        chart=RATIOS,
    ),
    Statistic(
        "sliced_ep_ratio_max",
        lambda z: float(z.sliced.max()) / characteristic.sliced_epps_pulley_max_null(*z.size, num_slices=z.num_slices),
        meaning="the largest of them",
        gaussian="1",
        collapsed="far above 1",
        better="lower",
        chart=RATIOS,
    ),
    Statistic(
        "axis_ep_ratio_max",
        lambda z: (
            float(characteristic.axis_epps_pulley(z.cloud).max())
            / characteristic.axis_epps_pulley_max_null(z.cloud.n, z.cloud.white.shape[1])
        ),
        meaning="the largest along whitened principal axes",
        gaussian="1",
        collapsed="NaN",
        better="lower",
    ),
    Statistic(
        "covariance_error_ratio",
        lambda z: moments.covariance_error(z.cloud) / moments.covariance_error_null(*z.size),
        meaning="squared distance of the covariance from I",
        gaussian="1",
        collapsed="(N - 1) / (K + 1)",
        better="lower",
        chart=RATIOS,
    ),
    Statistic(
        "mean_error_ratio",
        lambda z: moments.mean_error(z.cloud) / moments.mean_error_null(*z.size),
        meaning="squared length of the mean",
        gaussian="1",
        collapsed="any",
        better="lower",
    ),
    Statistic(
        "norm_variance_ratio",
        lambda z: z.norm.variance_ratio,
        meaning="variance of the squared norm",
        gaussian="1",
        collapsed="0",
        better="near 1",
        chart=RATIOS,
    ),
    Statistic(
        "norm_ks",
        lambda z: z.norm.ks,
        meaning="sqrt(N) Kolmogorov-Smirnov distance of the squared norm",
        gaussian="0.86 +- 0.26",
        collapsed="sqrt(N)",
        better="lower",
    ),
    Statistic(
        "skewness_z",
        lambda z: z.mardia.skewness_z,
        meaning="Mardia's skewness, in standard deviations",
        gaussian="0 +- 2",
        collapsed="NaN",
        better="near 0",
        chart=DEVIATIONS,
    ),
    Statistic(
        "kurtosis_z",
        lambda z: z.mardia.kurtosis_z,
        meaning="Mardia's kurtosis, in standard deviations",
        gaussian="0 +- 2",
        collapsed="NaN",
        better="near 0",
        chart=DEVIATIONS,
    ),
    Statistic(
        "effective_rank_ratio",
        lambda z: dimension.effective_rank(z.cloud) / dimension.effective_rank_null(*z.size),
        meaning="RankMe over its value for a Gaussian",
        gaussian="1",
        collapsed="NaN or 1 / K",
        better="higher",
        chart=RATIOS,
    ),
)


def gaussianity_statistics(z: Tensor | Cloud, *, num_slices: int = 256, seed: int = 0) -> dict[str, float]:
    """Compute all statistics of a cloud; a ratio is 1 for N(0, I), whatever N and K, and a z is 0 +- 1.

    The null values that have no closed form are drawn at the first call for an N and K, which takes about a second.

    Args:
        z: (N, K) embeddings. Rows with a non-finite value are left out, with a warning.
        num_slices: random directions of the sliced statistic.
        seed: seed of these directions.

    Returns:
        name to value; NaN where there are too few samples for the statistic or the cloud has no extent.
    """
    cloud = Cloud.of(z)
    if cloud.n == 0:
        rank_zero_warn("There are no finite embeddings: every statistic of their Gaussianity is NaN.")
        return {statistic.name: math.nan for statistic in STATISTICS}
    shared = Shared(cloud, num_slices, seed)
    return {statistic.name: statistic.compute(shared) for statistic in STATISTICS}


class EmbeddingGaussianity(Metric):
    """Metric: :func:`gaussianity_statistics` of all embeddings seen, over all batches and processes.

    ``update`` takes (B, K) embeddings; ``compute`` returns a dict of scalar tensors, for ``self.log_dict``. It keeps
    8 N K bytes. All values are NaN before the first embedding.

    Args:
        num_slices: random directions of the sliced statistic.
        seed: seed of these directions.
        kwargs: arguments of ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    embeddings: list[Tensor]
    width: Tensor

    def __init__(self, *, num_slices: int = 256, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_slices = num_slices
        self.seed = seed
        # a process that received nothing sends an empty 1-d tensor of the metric's dtype: so must the others
        self.set_dtype(torch.float64)
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")
        self.add_state("width", default=torch.tensor(0), dist_reduce_fx=_common_width)

    def update(self, z: Tensor) -> None:
        """Add (B, K) embeddings.

        Raises:
            TypeError: for what is not a tensor.
            ValueError: if they are not (B, K), or K is not that of the embeddings before.
        """
        z = require_embeddings(z)
        self.width = _common_width(torch.stack([self.width, torch.tensor(z.shape[1]).to(self.width)]))
        self.embeddings.append(as_float64(z).flatten())

    def compute(self) -> dict[str, Tensor]:
        """Name to scalar tensor, over all embeddings of all processes."""
        z = dim_zero_cat(self.embeddings) if len(self.embeddings) else torch.zeros(0, dtype=torch.float64)
        values = gaussianity_statistics(
            z.reshape(-1, max(1, int(self.width))), num_slices=self.num_slices, seed=self.seed
        )
        return {name: torch.tensor(value, dtype=z.dtype, device=z.device) for name, value in values.items()}


def _common_width(widths: Tensor) -> Tensor:
    """The one K of batches or processes; 0 stands for one that received nothing."""
    seen = widths[widths > 0].unique()
    if len(seen) > 1:
        raise ValueError(f"Embeddings of one metric must all have the same K, got {seen.tolist()}.")
    return widths.max()
