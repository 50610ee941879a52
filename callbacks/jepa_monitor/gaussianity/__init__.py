"""Statistics of an embedding cloud, each beside its value under N(0, I)."""

from .dashboard import GaussianityNull, gaussianity
from .epps_pulley import (
    characteristic_function,
    epps_pulley,
    epps_pulley_null,
    random_directions,
    sliced_epps_pulley,
)
from .moments import covariance_error, effective_rank, mardia_kurtosis_z, mardia_skewness_z, mean_error, norm_ks

__all__ = [
    "GaussianityNull",
    "characteristic_function",
    "covariance_error",
    "effective_rank",
    "epps_pulley",
    "epps_pulley_null",
    "gaussianity",
    "mardia_kurtosis_z",
    "mardia_skewness_z",
    "mean_error",
    "norm_ks",
    "random_directions",
    "sliced_epps_pulley",
]
