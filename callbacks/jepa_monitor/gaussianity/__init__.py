"""Statistics of an embedding cloud, each beside its value under N(0, I).

``<name>(z)`` takes (N, K) embeddings, ``<name>_null(n, k)`` is what to expect of a Gaussian.
"""

from .characteristic import (
    axis_epps_pulley,
    axis_epps_pulley_max_null,
    axis_epps_pulley_null,
    characteristic_function,
    epps_pulley,
    random_directions,
    sliced_epps_pulley,
    sliced_epps_pulley_max_null,
    sliced_epps_pulley_null,
)
from .cloud import Cloud
from .dashboard import EmbeddingGaussianity, gaussianity_statistics
from .dimension import effective_rank, effective_rank_null
from .moments import (
    Mardia,
    MardiaNull,
    NormConcentration,
    covariance_error,
    covariance_error_null,
    mardia,
    mardia_null,
    mean_error,
    mean_error_null,
    norm_concentration,
    norm_concentration_null,
)

__all__ = [
    "Cloud",
    "EmbeddingGaussianity",
    "Mardia",
    "MardiaNull",
    "NormConcentration",
    "axis_epps_pulley",
    "axis_epps_pulley_max_null",
    "axis_epps_pulley_null",
    "characteristic_function",
    "covariance_error",
    "covariance_error_null",
    "effective_rank",
    "effective_rank_null",
    "epps_pulley",
    "gaussianity_statistics",
    "mardia",
    "mardia_null",
    "mean_error",
    "mean_error_null",
    "norm_concentration",
    "norm_concentration_null",
    "random_directions",
    "sliced_epps_pulley",
    "sliced_epps_pulley_max_null",
    "sliced_epps_pulley_null",
]
